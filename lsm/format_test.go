package lsm_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path"
	"sort"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// A second reader of the files, written from FORMAT.md alone: it uses nothing of
// the engine but the Record that both give.

// A directory is its files by name.
type directory map[string][]byte

// A scroll is bytes that are read in order; it panics where there are too few.
type scroll []byte

func (s *scroll) take(n int) []byte {
	b := (*s)[:n]
	*s = (*s)[n:]
	return b
}
func (s *scroll) u8() uint8   { return s.take(1)[0] }
func (s *scroll) u16() uint16 { return binary.LittleEndian.Uint16(s.take(2)) }
func (s *scroll) u32() uint32 { return binary.LittleEndian.Uint32(s.take(4)) }
func (s *scroll) u64() uint64 { return binary.LittleEndian.Uint64(s.take(8)) }
func (s *scroll) dot() vclock.Dot {
	stamp := s.u64()
	return vclock.Dot{Stamp: stamp, Actor: s.u64()}
}
func (s *scroll) uvarint() uint64 {
	v, n := binary.Uvarint(*s)
	s.take(n)
	return v
}
func (s *scroll) varint() int64 {
	v, n := binary.Varint(*s)
	s.take(n)
	return v
}

// sum is the checksum of content at an offset of a file.
func sum(number uint64, off int, content []byte) uint32 {
	b := binary.LittleEndian.AppendUint64(nil, number)
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	return crc32.Checksum(append(b, content...), crc32.MakeTable(crc32.Castagnoli))
}

func must(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

// header gives the file number.
func header(b []byte, magic string) uint64 {
	s := scroll(b)
	must(string(s.take(8)) == magic, "magic %q", b[:8])
	must(s.u16() == 1 && s.u8() == 0 && s.u8() == 0 && s.u32() == 0, "version, cipher or key")
	number := s.u64()
	must(s.u32() == 0 && s.u32() == sum(number, 0, b[:28]), "checksum of the header")
	return number
}

type span struct{ lo, hi uint64 }

// A ledger is what the manifest says.
type ledger struct {
	logFrom uint64
	tables  map[uint64]uint64 // size, by file number
	dropped map[uint64][]span
}

func readManifest(b []byte, magic string) ledger {
	l := ledger{tables: map[uint64]uint64{}, dropped: map[uint64][]span{}}
	number := header(b, magic)
	previous := binary.LittleEndian.Uint32(b[28:])
	for off := 32; off < len(b); {
		s := scroll(b[off:])
		n := int(s.u32())
		must(s.u32() == previous, "a frame that follows")
		checksum := s.u32()
		payload := s.take(n)
		must(sum(number, off, append(bytes.Clone(b[off:off+8]), payload...)) == checksum, "checksum of the frame at %d", off)
		l.edit(scroll(payload))
		previous = checksum
		off += 12 + n
		seal := scroll(b[off:])
		must(seal.u32() == 0 && seal.u32() == previous && seal.u32() == sum(number, off, b[off:off+8]), "seal at %d", off)
		off += 12
	}
	return l
}

func (l *ledger) edit(s scroll) {
	added := map[uint64]uint64{}
	var removed []uint64
	for len(s) > 0 {
		switch tag := s.uvarint(); tag {
		case 1:
			s.take(16)
			s.uvarint()
		case 2:
			s.uvarint()
		case 3:
			l.logFrom = s.uvarint()
		case 4:
			removed = append(removed, s.uvarint())
		case 5:
			s.uvarint()
			s.u8()
			s.uvarint()
			s.u8()
			id := s.u64()
			added[id] = s.u64()
			s.take(112 - 16)
		case 6:
			s.uvarint()
			s.take(16 + 16)
		case 7:
			s.uvarint()
			s.take(16)
		case 8:
			id := s.uvarint()
			l.dropped[id] = append(l.dropped[id], span{s.u64(), s.u64()})
		case 9:
			s.uvarint()
			s.uvarint()
		default:
			panic(fmt.Sprint("tag ", tag))
		}
	}
	for _, id := range removed {
		delete(l.tables, id)
	}
	for id, size := range added {
		l.tables[id] = size
	}
}

var unzstd, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))

// readTable calls do with each record.
func readTable(b []byte, do func(lsm.Record)) {
	number := header(b, "kvstable")
	at := len(b) - 40
	s := scroll(b[at:])
	filter, index, properties, hash := int(s.u64()), int(s.u64()), int(s.u64()), s.u64()
	must(s.u32() == sum(number, at, b[at:at+32]) && string(s) == "kvse", "footer")
	must(xxhash.Sum64(b[:at]) == hash, "hash of the file")
	for _, end := range [][2]int{{filter, index}, {index, properties}, {properties, at}} {
		must(binary.LittleEndian.Uint32(b[end[1]-4:]) == sum(number, end[0], b[end[0]:end[1]-4]), "section at %d", end[0])
	}
	p := scroll(b[properties : at-4])
	must(p.u64() == number, "number in the properties")
	p.u64()
	count := p.u64()
	p.take(8*5 + 32 + 8 + 8)
	actors := make([]uint64, p.uvarint())
	for i := range actors {
		actors[i] = p.u64()
	}
	i, token, off := scroll(b[index:properties-4]), uint64(0), 32
	for range i.uvarint() {
		token += i.uvarint()
		n := int(i.uvarint())
		stored := b[off : off+n]
		must(binary.LittleEndian.Uint32(stored[n-4:]) == sum(number, off, stored[:n-4]), "block at %d", off)
		content := stored[:n-5]
		var err error
		switch stored[n-5] {
		case 1:
			content, err = s2.Decode(nil, content)
		case 2:
			content, err = unzstd.DecodeAll(content, nil)
		}
		must(err == nil, "%v", err)
		count -= readBlock(content, token, actors, b[filter:index], do)
		off += n
	}
	must(off == filter && count == 0, "blocks up to the filter, all records")
}

// readBlock gives the number of records.
func readBlock(b []byte, first uint64, actors []uint64, filter []byte, do func(lsm.Record)) uint64 {
	n := int(binary.LittleEndian.Uint16(b[len(b)-2:]))
	shift, tail := b[len(b)-3], len(b)-11
	millis := binary.LittleEndian.Uint64(b[tail:])
	slots, sizes := scroll(b[tail-7*n:]), scroll(b[tail-5*n:])
	keys, flags := scroll(b[tail-3*n:]), b[tail-n:tail]
	bodies := scroll(b[:tail-7*n])
	for k := range n {
		size := int(sizes.u16())
		if k == n-1 {
			must(size == 0, "size of the last body")
			size = len(bodies)
		}
		s := scroll(bodies.take(size))
		r := lsm.Record{Kind: lsm.Kind(flags[k] & 3), Key: s.take(int(keys.u16()))}
		r.Token = lsm.Token(r.Key)
		if flags[k]&0x10 != 0 {
			r.Token = s.u64()
		}
		switch a := flags[k] >> 5; a {
		case 7:
			r.Max.Actor = s.u64()
		case 6:
			r.Max.Actor = actors[s.uvarint()]
		default:
			r.Max.Actor = actors[a]
		}
		at := millis + uint64(s.varint())
		r.Max.Stamp = at<<16 | s.uvarint()
		r.Min = r.Max
		if flags[k]&8 != 0 {
			r.Min = s.dot()
		}
		if flags[k]&4 != 0 {
			r.Deadline = s.varint() + int64(at)
		}
		r.Value = s
		must(uint64(slots.u16()) == (r.Token-first)>>shift, "slot of %q", r.Key)
		must(admits(filter, r.Token), "filter of %q", r.Key)
		do(r)
	}
	return uint64(n)
}

func admits(b []byte, token uint64) bool {
	s := scroll(b)
	scheme, k := s.u8(), s.u8()
	s.take(6)
	m := s.u64()
	x := token
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	for i := range uint64(k) {
		bit := (token + i*(x|1)) % m
		if binary.LittleEndian.Uint64(s[bit/64*8:])>>(bit%64)&1 == 0 {
			return false
		}
	}
	return scheme <= 1
}

// readLog calls do with the records of all groups from a segment on.
func readLog(d directory, from uint64, do func(lsm.Record)) {
	groups := map[uint64][]byte{}
	next := uint64(0) // sequence
	for _, name := range d.names(".log") {
		b := d[name]
		number := header(b, "kvs-log\n")
		if number < from {
			continue
		}
		head := scroll(b[32:44])
		salt := head.u64()
		must(head.u32() == sum(number, 32, b[32:40]), "checksum of the salt")
		for off := 44; off+40 <= len(b); {
			s := scroll(b[off:])
			checksum, n := s.u32(), int(s.u32())
			if s.u64() != salt || 40+n > len(b)-off || sum(number, off, b[off+4:off+40+n]) != checksum {
				break // behind the end
			}
			sequence := s.u64()
			for ; next > sequence; next-- {
				delete(groups, next-1) // replaced
			}
			must(next == 0 || next == sequence, "group %d after %d", sequence, next-1)
			groups[sequence], next = b[off+40:off+40+n], sequence+1
			off += 40 + n
		}
	}
	for _, records := range groups {
		for s := scroll(records); len(s) > 0; {
			flags := s.u8()
			r := lsm.Record{Kind: lsm.Kind(flags & 3), Token: s.u64(), Max: s.dot()}
			r.Min = r.Max
			if flags&8 != 0 {
				r.Min = s.dot()
			}
			if flags&4 != 0 {
				r.Deadline = int64(s.u64())
			}
			key, value := int(s.uvarint()), int(s.uvarint())
			r.Key, r.Value = s.take(key), s.take(value)
			do(r)
		}
	}
}

func (d directory) names(suffix string) (names []string) {
	for name := range d {
		if strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func identity(r lsm.Record) string { return fmt.Sprintf("%016x %s", r.Token, r.Key) }

// records gives the newest of each token and key.
func (d directory) records() map[string]lsm.Record {
	all := map[string]lsm.Record{}
	take := func(r lsm.Record) {
		if old, ok := all[identity(r)]; !ok || old.Max.Less(r.Max) {
			all[identity(r)] = r
		}
	}
	l := ledger{}
	if b, ok := d["checkpoint"]; ok {
		l = readManifest(b, "kvscheck")
		must(l.logFrom == 0, "a log")
	} else {
		l = readManifest(d["manifest"], "kvsmanif")
		defer readLog(d, l.logFrom, take)
	}
	for id, size := range l.tables {
		b := d[fmt.Sprintf("%08d.table", id)]
		must(uint64(len(b)) == size, "size of table %d", id)
		readTable(b, func(r lsm.Record) {
			for _, dropped := range l.dropped[id] {
				if dropped.lo <= r.Token && r.Token <= dropped.hi {
					return
				}
			}
			take(r)
		})
	}
	return all
}

// TestFormat reads directories and checkpoints of the engine with the second reader: both
// find the same records. Some are fixtures of the first release.
func TestFormat(t *testing.T) {
	for _, compression := range []lsm.Compression{lsm.S2, lsm.NoCompression, lsm.Zstd} {
		disk := vfs.NewMem(1)
		writeEveryKind(t, disk, compression, 3000)
		for _, dir := range []string{"tree", "checkpoint"} {
			compareReaders(t, load(t, disk, dir), disk, dir)
		}
	}
	const every = "testdata/v1-every-kind"
	if flag.Lookup("rewrite").Value.String() == "true" {
		disk := vfs.NewMem(1)
		writeEveryKind(t, disk, lsm.Zstd, 600)
		for _, dir := range []string{"tree", "checkpoint"} {
			home := path.Join(every, dir)
			require.NoError(t, os.RemoveAll(home))
			require.NoError(t, os.MkdirAll(home, 0o755))
			for name, b := range load(t, disk, dir) {
				if name != "reserve" && name != "lock" {
					require.NoError(t, os.WriteFile(path.Join(home, name), b, 0o644))
				}
			}
		}
	}
	for _, fixture := range []string{"testdata/v1/tree", "testdata/v1/checkpoint", every + "/tree", every + "/checkpoint"} {
		d, disk := directory{}, vfs.NewMem(1)
		require.NoError(t, disk.MkdirAll("db"))
		files, err := os.ReadDir(fixture)
		require.NoError(t, err)
		for _, file := range files {
			b, err := os.ReadFile(path.Join(fixture, file.Name()))
			require.NoError(t, err)
			d[file.Name()] = b
			f, err := disk.Create(path.Join("db", file.Name()))
			require.NoError(t, err)
			_, err = f.WriteAt(b, 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		compareReaders(t, d, disk, "db")
	}
}

// writeEveryKind makes a tree with n records, some of them in the log, and a checkpoint of it
// after most of them.
func writeEveryKind(t *testing.T, disk *vfs.Mem, compression lsm.Compression, n int) {
	o := &lsm.Options{FS: disk, MemtableBytes: 64 << 10, Slices: 4, Compression: compression}
	tree, err := lsm.Open("tree", o)
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, tree.Apply([]lsm.Record{recordOfEveryKind(i)}))
		switch i {
		case n / 3, 2 * n / 3:
			require.NoError(t, tree.Flush())
		case 5 * n / 6:
			require.NoError(t, tree.DropRange(1<<62, 1<<62+1<<60))
			require.NoError(t, tree.Checkpoint("checkpoint"))
			require.NoError(t, tree.Close())
			tree, err = lsm.Open("tree", o)
			require.NoError(t, err)
		}
	}
	require.NoError(t, tree.Close())
}

// load gives the files of a directory.
func load(t *testing.T, disk *vfs.Mem, dir string) directory {
	d := directory{}
	names, err := disk.List(dir)
	require.NoError(t, err)
	for _, name := range names {
		f, err := disk.Open(path.Join(dir, name))
		require.NoError(t, err)
		size, err := f.Size()
		require.NoError(t, err)
		d[name] = make([]byte, size)
		n, err := f.ReadAt(d[name], 0)
		require.Equal(t, int(size), n, "%v", err)
		require.NoError(t, f.Close())
	}
	return d
}

// recordOfEveryKind gives records that use all there is in the format, each key
// twice unless it is causal.
func recordOfEveryKind(i int) lsm.Record {
	key := fmt.Appendf(nil, "key %d", i%2000)
	d := vclock.Dot{Stamp: uint64(1_700_000_000_000+i)<<16 | uint64(i), Actor: uint64(i % 9)}
	r := lsm.Record{Token: lsm.Token(key), Key: key, Kind: lsm.Value, Min: d, Max: d, Value: bytes.Repeat(key, i%20)}
	switch i % 7 {
	case 0:
		r.Kind, r.Value = lsm.Tombstone, nil
	case 1:
		r.Deadline = int64(d.Stamp>>16) + int64(i)
	case 2:
		r.Key = append(key, " causal "...)
		r.Key = fmt.Append(r.Key, i)
		r.Token = lsm.Token(r.Key)
		set := vclock.Plain(vclock.Sibling{Dot: d, Value: key})
		set = set.Write(vclock.History{}, vclock.Sibling{Dot: vclock.Dot{Stamp: d.Stamp + 5, Actor: 77}, Value: []byte("other")})
		r.Kind, r.Value, r.Max = lsm.Causal, vclock.AppendSet(nil, set), set.Max()
	case 3:
		r.Token = lsm.SystemToken
	}
	return r
}

func compareReaders(t *testing.T, d directory, disk *vfs.Mem, dir string) {
	t.Helper()
	nothing := func(uint64) vclock.Dot { return vclock.Dot{} } // is behind the horizon, so that nothing is purged
	tree, err := lsm.Open(dir, &lsm.Options{FS: disk, MemtableBytes: 64 << 10, Horizon: nothing})
	require.NoError(t, err)
	found := d.records()
	n, deadlines, kinds := 0, 0, [4]int{}
	for r, err := range tree.Scan(0, math.MaxUint64) {
		require.NoError(t, err)
		got := found[identity(r)]
		require.Equal(t, [5]any{r.Token, r.Kind, r.Min, r.Max, r.Deadline}, [5]any{got.Token, got.Kind, got.Min, got.Max, got.Deadline}, "%q", r.Key)
		require.True(t, bytes.Equal(r.Value, got.Value), "%q", r.Key)
		n++
		kinds[r.Kind]++
		if r.Deadline != 0 {
			deadlines++
		}
	}
	require.Len(t, found, n)
	require.NoError(t, tree.Close())
	t.Logf("%d values, %d tombstones, %d causal, %d with a deadline, %d tables", kinds[lsm.Value], kinds[lsm.Tombstone], kinds[lsm.Causal], deadlines, len(d.names(".table")))
}
