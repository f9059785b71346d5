package lsm

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// stats are the counters behind Metrics.
type stats struct {
	groups, batches, syncs, logBytes, replayedBytes atomic.Uint64
	stalls, joinLimits, orphans                     atomic.Uint64
	delays, delayed, stalled                        atomic.Uint64 // the last two in nanoseconds
	flushes, flushedBytes                           atomic.Uint64
	compactions, readBytes, compactedBytes, purged  atomic.Uint64
	tableReads, falsePositives                      atomic.Uint64
	ingestedBytes, moved                            atomic.Uint64
	setAside, scrubs, scrubbedBytes                 atomic.Uint64
}

// Metrics is a snapshot of what a tree has done since Open and what it holds.
// All sizes are in bytes.
type Metrics struct {
	Groups, Batches, Syncs uint64        // of the log: a group is one write
	LogBytes               uint64        // written to the log
	ReplayedBytes          uint64        // read from the log by Open
	Segments, IdleSegments int           // of the log: in use; waiting to be recycled
	Stalls                 uint64        // times that a writer or the log waited for room
	StallTime              time.Duration // that the log waited for a memtable to be flushed
	Delays                 uint64        // writes that were slowed down, so that there be no stall
	DelayTime              time.Duration // by so much, all together

	Memtables       int // the active one and those waiting to be flushed
	MemtableBytes   int64
	MemtableRecords uint64 // a key may be in several

	Tables                    int
	TableBytes, TableRawBytes uint64 // on disk; keys and values in them
	Records, Tombstones       uint64 // in tables; a key may be in several
	MaxRuns                   int    // of the slice that has most
	Levels                    []LevelMetrics
	DebtBytes                 uint64 // that compactions must still read

	Flushes, FlushedBytes                            uint64
	Compactions, CompactionReadBytes, CompactedBytes uint64
	Purged                                           uint64 // tombstones
	Orphans                                          uint64 // leftovers of a crash, removed by Open

	CacheHits, CacheMisses uint64 // reads that the cache was asked in, after the memtables
	CacheDropped           uint64 // fills of the cache that a write or a purge overtook
	CacheRecords           int
	CacheBytes             int64 // all that it holds in memory

	TableReads, FalsePositives uint64 // reads of a table; those that found nothing

	MemoryBudget    int64 // Options.MemoryBytes
	LogBufferBytes  int64 // held for both halves of the log's buffer
	IdleMemoryBytes int64 // kept of freed memtables for the next ones
	CacheCapacity   int64 // what indexes and filters leave to the cache

	OpenTables     int    // tables with their index and filter in memory
	MetadataBytes  int64  // of those
	Opens, Evicted uint64 // times that a table was opened, closed to make room
	JoinLimits     uint64 // joins that a limit of vclock cut short

	IngestedBytes uint64 // in tables made by Ingest

	HotBytes, ColdBytes uint64 // of tables, by tier
	ColdTables          int
	MovedTables         uint64 // to the cold directory

	SetAside      uint64 // damaged tables since Open
	DamagedRanges int    // that are not healed

	Scrubs, ScrubbedBytes uint64 // rounds over all tables; bytes verified
}

// WriteAmplification is what tables cost in writes for each byte flushed.
func (m Metrics) WriteAmplification() float64 {
	if m.FlushedBytes == 0 {
		return 0
	}
	return float64(m.FlushedBytes+m.CompactedBytes) / float64(m.FlushedBytes)
}

// Metrics gives a snapshot. After Close it holds only what was counted.
func (t *Tree) Metrics() Metrics {
	s := &t.stats
	m := Metrics{
		Groups: s.groups.Load(), Batches: s.batches.Load(), Syncs: s.syncs.Load(),
		LogBytes: s.logBytes.Load(), ReplayedBytes: s.replayedBytes.Load(), Stalls: s.stalls.Load(),
		StallTime: time.Duration(s.stalled.Load()), Delays: s.delays.Load(), DelayTime: time.Duration(s.delayed.Load()),
		Flushes: s.flushes.Load(), FlushedBytes: s.flushedBytes.Load(),
		Compactions: s.compactions.Load(), CompactionReadBytes: s.readBytes.Load(), CompactedBytes: s.compactedBytes.Load(),
		Purged: s.purged.Load(), Orphans: s.orphans.Load(),
		TableReads: s.tableReads.Load(), FalsePositives: s.falsePositives.Load(), JoinLimits: s.joinLimits.Load(),
		IngestedBytes: s.ingestedBytes.Load(), MovedTables: s.moved.Load(), SetAside: s.setAside.Load(), Scrubs: s.scrubs.Load(), ScrubbedBytes: s.scrubbedBytes.Load(),
	}
	v := t.acquire(0)
	if v == nil {
		return m
	}
	defer t.release(v, 0)
	m.DamagedRanges = len(v.damaged)
	c := t.cache.Stats()
	m.CacheHits, m.CacheMisses, m.CacheDropped, m.CacheRecords, m.CacheBytes = c.Hits, c.Misses, c.Dropped, c.Records, c.Bytes
	m.Segments, m.IdleSegments = t.log.Segments()
	m.MemoryBudget, m.IdleMemoryBytes, m.LogBufferBytes = t.o.MemoryBytes, t.memory.Bytes(), t.queue.MemoryBytes()
	m.CacheCapacity = t.cache.Capacity()
	m.MetadataBytes, m.OpenTables = t.metadata.held()
	m.Opens, m.Evicted = t.metadata.opens.Load(), t.metadata.evictions.Load()
	m.Memtables = len(v.mems)
	for _, mem := range v.mems {
		m.MemtableBytes += mem.Bytes()
		m.MemtableRecords += uint64(mem.Count())
	}
	for f := range v.tables() {
		m.Tables++
		m.TableBytes += f.Bytes
		if f.Cold {
			m.ColdTables++
			m.ColdBytes += f.Bytes
		} else {
			m.HotBytes += f.Bytes
		}
		m.TableRawBytes += f.RawBytes
		m.Records += f.Count
		m.Tombstones += f.Tombstones
	}
	for _, runs := range v.slices {
		m.MaxRuns = max(m.MaxRuns, len(runs))
	}
	m.Levels = v.levels()
	m.DebtBytes = uint64(max(t.load.pending.Load()+t.load.reading.Load(), 0))
	return m
}

// String is a table.
func (m Metrics) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s ", name)
		fmt.Fprintf(&b, format, args...)
		b.WriteByte('\n')
	}
	line("log", "%d groups, %d batches, %d syncs, %d bytes, %d segments + %d idle, %d bytes replayed",
		m.Groups, m.Batches, m.Syncs, m.LogBytes, m.Segments, m.IdleSegments, m.ReplayedBytes)
	line("waits", "%d stalls, %v of the log; %d writes delayed, %v", m.Stalls, m.StallTime, m.Delays, m.DelayTime)
	line("memtables", "%d, %d bytes, %d records", m.Memtables, m.MemtableBytes, m.MemtableRecords)
	line("tables", "%d, %d bytes (%d raw), %d records, %d tombstones, at most %d in a slice, %d orphans removed",
		m.Tables, m.TableBytes, m.TableRawBytes, m.Records, m.Tombstones, m.MaxRuns, m.Orphans)
	for _, l := range m.Levels {
		line("", "%-10s %5d runs %6d tables %15d bytes %12d records", levelName(l.Level), l.Runs, l.Tables, l.Bytes, l.Records)
	}
	line("flush", "%d, %d bytes; %d bytes ingested", m.Flushes, m.FlushedBytes, m.IngestedBytes)
	line("compaction", "%d, %d bytes read, %d written, debt %d bytes, %d tombstones purged; amplification: write %.2f, space %.2f",
		m.Compactions, m.CompactionReadBytes, m.CompactedBytes, m.DebtBytes, m.Purged, m.WriteAmplification(), m.SpaceAmplification())
	line("cache", "%d records, %d bytes, %d hits, %d misses, %d fills dropped",
		m.CacheRecords, m.CacheBytes, m.CacheHits, m.CacheMisses, m.CacheDropped)
	line("reads", "%d of tables, %d false positives, %d joins cut short", m.TableReads, m.FalsePositives, m.JoinLimits)
	line("tiers", "%d bytes hot, %d bytes cold in %d tables, %d moved", m.HotBytes, m.ColdBytes, m.ColdTables, m.MovedTables)
	line("damage", "%d tables set aside, %d ranges not healed, %d scrubs, %d bytes scrubbed", m.SetAside, m.DamagedRanges, m.Scrubs, m.ScrubbedBytes)
	line("memory", "budget of %d bytes: memtables %d + %d idle, log buffers %d, metadata %d, cache %d of %d",
		m.MemoryBudget, m.MemtableBytes, m.IdleMemoryBytes, m.LogBufferBytes, m.MetadataBytes, m.CacheBytes, m.CacheCapacity)
	line("metadata", "%d bytes of %d open tables, %d opens, %d evictions", m.MetadataBytes, m.OpenTables, m.Opens, m.Evicted)
	return b.String()
}
