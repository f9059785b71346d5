package lsm

import (
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"time"

	"example.com/kvstore/lsm/internal/compaction"
	"example.com/kvstore/lsm/internal/memtable"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// A SyncPolicy says when a write is acknowledged and visible.
type SyncPolicy struct {
	lazy  bool
	every time.Duration
}

var (
	// SyncAlways acknowledges a write when it is durable.
	SyncAlways = SyncPolicy{}
	// SyncNever acknowledges a write once it is in the log's buffer, which is
	// written at once and synced when a segment ends. A crash of the machine
	// loses what was not synced, a crash of the process what was not written, and
	// so do a failed write and a Close while the volume is full, which report it.
	SyncNever = SyncPolicy{lazy: true}
)

// SyncEvery is like SyncNever, but syncs d after the first unsynced write. With d
// of zero or less that is at once: it is SyncAlways.
func SyncEvery(d time.Duration) SyncPolicy {
	if d <= 0 {
		return SyncAlways
	}
	return SyncPolicy{lazy: true, every: d}
}

func (p SyncPolicy) String() string {
	switch {
	case !p.lazy:
		return "always"
	case p.every == 0:
		return "never"
	}
	return "every " + p.every.String()
}

// Compression says how table blocks are stored.
type Compression uint8

const (
	// S2 is fast and halves typical values; the default.
	S2 Compression = iota
	// NoCompression stores blocks as they are: for values that are compressed already.
	NoCompression
	// Zstd is smaller than S2 for text and the like. A read of a table costs about
	// a microsecond more, and flushes and compactions several times the CPU.
	Zstd
)

// Options are the settings of a tree. The zero value of each field is its
// default; a nil *Options is all defaults.
type Options struct {
	// Sync says when a write is acknowledged. Default SyncAlways.
	Sync SyncPolicy
	// MemoryBytes bounds what the tree takes in memory: memtables, log buffers,
	// indexes and filters of tables, the record cache, and buffers of flush and
	// compaction together. The fields below that have to do with memory follow
	// from it where they are zero: a quarter is for memtables (each up to 64 MiB), a
	// 32nd for log buffers (each up to 8 MiB), up to 3/32 for work, the rest for
	// metadata of tables and cache. Where they are set they must fit in. Indexes
	// and filters, about 2 bytes a key, are kept out of memory beyond 3/4 of their
	// share with the cache, and reads become slow. Below 64 MiB the process takes
	// more than that, up to about 16 MiB. Default: what the other fields sum to, 592
	// MiB if none is set; at least 512 KiB.
	MemoryBytes int64
	// MemtableBytes is the size at which a memtable is flushed, and the size of
	// a log segment. Larger means fewer, larger tables and a longer recovery.
	// Up to MaxMemtables of them are in memory. Default 64 MiB, at least 64 KiB.
	// Even a tree of one key has two segments on the disk while it is open, and a
	// reserve for the day when the volume is full, of MemtableBytes and a quarter: 209 MB
	// by default and less than 1 MB with MemoryBytes of 512 KiB.
	MemtableBytes int64
	// MaxMemtables bounds the memtables in memory, the active one and those
	// waiting to be flushed. Beyond it writers wait. Default 4, at least 2.
	MaxMemtables int
	// CacheBytes is the memory for copies of hot records, which spare a read the
	// tables. All of it counts, index and headers too: a record takes about 60
	// bytes beyond key and value. Records of more than 64 KiB are not kept. It is
	// taken as it fills, and smaller while indexes and filters of tables need
	// the room. Default 256 MiB, or all that MemoryBytes leaves; negative: no cache.
	CacheBytes int64
	// LogBufferBytes bounds what waits for the log. Beyond it Put, Delete and
	// Apply wait, and Submit fails with ErrOverloaded. Default 8 MiB, at least 4 KiB.
	LogBufferBytes int
	// Shards is the number of locks of a memtable, a power of two up to 64. Default 32.
	Shards int
	// Slices is the number of equal token ranges with tables of their own, a
	// power of two up to 4096. One compaction needs at most the space of one
	// slice. It is fixed when the directory is created. Default 8.
	Slices int
	// Compression of table blocks. Default S2.
	Compression Compression
	// BitsPerKey is the mean size of the tables' Bloom filters: 10 bits let 0.8 %
	// of absent keys through. Large tables get somewhat less and small ones more.
	// Negative: no filters. Default 10.
	BitsPerKey float64

	// MaxOpenFiles bounds the tables that are open at a time; one beyond it is
	// closed and opened again when it is needed. A read needs one, a scan or
	// compaction one for each run of tables, on top where need be. Default 1000.
	MaxOpenFiles int

	// Join merges two encoded causal values of a key; Dots gives the lowest and
	// highest dot in one. Both must be deterministic and must not keep their
	// arguments. Default: vclock.JoinEncoded and vclock.EncodedDots, which they
	// must be compatible with.
	Join func(key, a, b []byte) []byte
	Dots func(value []byte) (lo, hi vclock.Dot)
	// Horizon gives the durable dot up to which no record of the token will
	// ever arrive again: tombstones at or below it may be purged. Nil is for a
	// tree that is written by Put and Delete only: it purges their tombstones
	// as soon as nothing older is left, and keeps those of other actors for
	// ever. Set it when records come through Apply.
	Horizon func(token uint64) vclock.Dot
	// Isolate says that others have the data too. A table that is found damaged, or
	// that cannot be read for 10 seconds, is then set aside, and so is a damaged log
	// from the damage on: the tree goes on without, reads of what is lost give
	// ErrCorrupt until Healed is called, and Open succeeds. Without it damage makes Open or the read that meets it fail
	// with ErrCorrupt, a compaction that meets it ends all writing, and no file is
	// touched.
	Isolate bool
	// OnDamage is called when a table was set aside while the tree is open, on the
	// goroutine that did it, and must not wait for the tree. Damaged has what was
	// lost before.
	OnDamage func(Range)
	// ColdDir is a second directory, on a volume that may be larger and slower, for
	// the tables whose newest record is older than ColdAfter by its stamp and which no
	// merge is likely to read soon. It is created when it is needed, and may be shared
	// by several trees; Open fails with ErrLocked while a copy of this one has its part
	// open. A tree that has used it needs it at every Open. Default: none.
	ColdDir string
	// ColdAfter is how old a table gets before it moves to ColdDir. Default 7 days.
	ColdAfter time.Duration
	// ScrubBytesPerSecond, when set, has all tables verified again and again in the
	// background at this rate, with at least an hour between two rounds, and bounds
	// the rate of Scrub. Default 0: none in the background, Scrub at full speed.
	ScrubBytesPerSecond int64
	// GroupDone is called on the log's goroutine after the completions of a
	// group have run. It must not block.
	GroupDone func()

	// Identity names the directory when it is created, or made of a checkpoint.
	// Zero: drawn at random.
	Identity [16]byte

	// Random draws the salts of log segments, and the Identity. Who writes to the tree
	// must not be able to foresee them. It is called by one goroutine at a time. Default:
	// crypto/rand.
	Random func() uint64
	// FS is where the files are. Default vfs.OS.
	FS vfs.FS
	// Now stamps Put and Delete, and judges deadlines in Get. Default time.Now.
	Now func() time.Time
	// Events is told what happens in the background.
	Events *EventListener
	// Logger gets what happens in the background. Nil: silent.
	Logger *slog.Logger

	// tableMemory is for indexes and filters, bounded by metadataBytes, and for
	// the cache.
	tableMemory, metadataBytes int64

	// pick chooses compactions, and maxTableBytes is the size at which a table
	// ends; tests have their own.
	pick          func(slices [][]compaction.Run, c compaction.Conditions) (compaction.Job, bool)
	maxTableBytes uint64
}

const (
	defaultMemtableBytes = 64 << 20
	minMemtableBytes     = 64 << 10
	defaultMaxMemtables  = 4
	defaultCacheBytes    = 256 << 20
	defaultLogBuffer     = 8 << 20
	defaultShards        = 32
	defaultSlices        = 8
	defaultBitsPerKey    = 10
	defaultOpenFiles     = 1000
	maxSlices            = 4096
	defaultColdAfter     = 7 * 24 * time.Hour
	leastLogBuffer       = 4 << 10
	maxMemtableBytes     = 1 << 30
	maxMemtables         = 64
	maxCacheBytes        = 1 << 40
	maxBitsPerKey        = 64
)

// withDefaults gives a copy of o in which everything is set.
func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if err := c.divide(); err != nil {
		return c, err
	}
	if c.Shards == 0 {
		c.Shards = defaultShards
	}
	if c.Slices == 0 {
		c.Slices = defaultSlices
	}
	if c.MaxOpenFiles == 0 {
		c.MaxOpenFiles = defaultOpenFiles
	}
	if c.ColdAfter == 0 {
		c.ColdAfter = defaultColdAfter
	}
	if c.BitsPerKey == 0 {
		c.BitsPerKey = defaultBitsPerKey
	}
	if c.Random == nil {
		c.Random = systemRandom
	}
	if c.FS == nil {
		c.FS = vfs.OS
	}
	if c.Now == nil {
		c.Now = systemNow
	}
	if c.pick == nil {
		c.pick = compaction.Pick
	}
	if c.maxTableBytes == 0 {
		c.maxTableBytes = maxTableBytes
	}
	if c.Events == nil {
		c.Events = &EventListener{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, c.validate()
}

func (o *Options) validate() error {
	switch {
	case o.MemtableBytes < minMemtableBytes || o.MemtableBytes > maxMemtableBytes:
		return fmt.Errorf("%w: MemtableBytes is %d, set %d to %d", ErrInvalid, o.MemtableBytes, minMemtableBytes, maxMemtableBytes)
	case o.MaxMemtables < 2 || o.MaxMemtables > maxMemtables:
		return fmt.Errorf("%w: MaxMemtables is %d, set 2 to %d", ErrInvalid, o.MaxMemtables, maxMemtables)
	case o.MemoryBytes > maxCacheBytes || o.CacheBytes > maxCacheBytes:
		return fmt.Errorf("%w: MemoryBytes is %d and CacheBytes %d, set at most %d", ErrInvalid, o.MemoryBytes, o.CacheBytes, int64(maxCacheBytes))
	case o.LogBufferBytes < leastLogBuffer || o.LogBufferBytes > maxMemtableBytes:
		return fmt.Errorf("%w: LogBufferBytes is %d, set %d to %d", ErrInvalid, o.LogBufferBytes, leastLogBuffer, maxMemtableBytes)
	case math.IsNaN(o.BitsPerKey) || o.BitsPerKey > maxBitsPerKey:
		return fmt.Errorf("%w: BitsPerKey is %v, set at most %d, or less than 0 for none", ErrInvalid, o.BitsPerKey, maxBitsPerKey)
	case o.Shards < 0 || o.Shards > memtable.MaxShards || bits.OnesCount(uint(o.Shards)) != 1:
		return fmt.Errorf("%w: Shards is %d, set a power of two up to %d", ErrInvalid, o.Shards, memtable.MaxShards)
	case o.Slices < 0 || o.Slices > maxSlices || bits.OnesCount(uint(o.Slices)) != 1:
		return fmt.Errorf("%w: Slices is %d, set a power of two up to %d", ErrInvalid, o.Slices, maxSlices)
	case o.MaxOpenFiles < 0:
		return fmt.Errorf("%w: MaxOpenFiles is negative", ErrInvalid)
	case o.Compression > Zstd:
		return fmt.Errorf("%w: Compression is %d, set S2, NoCompression or Zstd", ErrInvalid, o.Compression)
	case o.ColdAfter < 0:
		return fmt.Errorf("%w: ColdAfter is negative", ErrInvalid)
	case o.ScrubBytesPerSecond < 0:
		return fmt.Errorf("%w: ScrubBytesPerSecond is negative", ErrInvalid)
	case (o.Join == nil) != (o.Dots == nil):
		return fmt.Errorf("%w: set both Join and Dots, or neither", ErrInvalid)
	}
	return nil
}

func (o *Options) tableOptions() table.WriterOptions {
	w := table.WriterOptions{BitsPerKey: o.BitsPerKey}
	switch o.Compression {
	case NoCompression:
		w.Compression = table.None
	case Zstd:
		w.Compression = table.Zstd
	}
	return w
}
