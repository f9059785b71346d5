package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/offheap"
	"example.com/kvstore/lsm/vfs"
)

const (
	formatVersion = 1
	footerBytes   = 40
	footerMagic   = "kvse"

	// maxSectionBytes bounds the filter, the index and the properties.
	maxSectionBytes = 1 << 30
)

// footer ends a table:
//
//	filter offset u64 | index offset u64 | properties offset u64 | hash u64 | checksum u32 | magic 4
type footer struct {
	filter, index, properties uint64 // offsets
	at                        uint64 // its own
	hash                      uint64 // of everything before it
}

func appendFooter(dst []byte, id uint64, f footer) []byte {
	start := len(dst)
	for _, v := range [...]uint64{f.filter, f.index, f.properties, f.hash} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = binary.LittleEndian.AppendUint32(dst, base.Checksum(id, int64(f.at), dst[start:]))
	return append(dst, footerMagic...)
}

// readFooter reads header and footer of the table with number id.
func readFooter(f vfs.File, id uint64) (footer, error) {
	name := base.TableName(id)
	size, err := f.Size()
	if err != nil {
		return footer{}, fmt.Errorf("table: size of %s: %w", name, err)
	}
	if size < base.HeaderBytes+footerBytes {
		return footer{}, base.Corrupt(name, 0, "a header and a footer", fmt.Sprintf("%d bytes", size))
	}
	var b [footerBytes]byte
	if err := ReadAt(f, name, b[:base.HeaderBytes], 0); err != nil {
		return footer{}, err
	}
	h, err := base.DecodeHeader(b[:base.HeaderBytes], base.TableMagic, formatVersion, name)
	if err != nil {
		return footer{}, err
	}
	if h.Number != id {
		return footer{}, base.Corrupt(name, 0, fmt.Sprintf("file number %d", id), h.Number)
	}
	at := size - footerBytes
	if err := ReadAt(f, name, b[:], at); err != nil {
		return footer{}, err
	}
	if found := string(b[36:]); found != footerMagic {
		return footer{}, base.Corrupt(name, at, "magic "+footerMagic, fmt.Sprintf("%q", found))
	}
	if want, found := base.Checksum(id, at, b[:32]), binary.LittleEndian.Uint32(b[32:]); want != found {
		return footer{}, base.Corrupt(name, at, want, found)
	}
	foot := footer{at: uint64(at)}
	for i, p := range [...]*uint64{&foot.filter, &foot.index, &foot.properties, &foot.hash} {
		*p = binary.LittleEndian.Uint64(b[8*i:])
	}
	if foot.filter < base.HeaderBytes || foot.filter > foot.index || foot.index > foot.properties || foot.properties > foot.at {
		return footer{}, base.Corrupt(name, at, "sections in order", fmt.Sprint(foot.filter, foot.index, foot.properties))
	}
	return foot, nil
}

// readSection reads the checksummed section in [from, to). It is off the Go heap,
// for the caller to free.
func readSection(f vfs.File, id, from, to uint64) ([]byte, error) {
	name := base.TableName(id)
	// Invariant: to is within the file, so the length is no larger than it.
	n := to - from
	if n < 4 || n > maxSectionBytes {
		return nil, base.Corrupt(name, int64(from), "a section of 4 bytes to 1 GiB", fmt.Sprintf("%d bytes", n))
	}
	b := offheap.Alloc(int(n))
	if err := ReadAt(f, name, b, int64(from)); err != nil {
		offheap.Free(b)
		return nil, err
	}
	b, sum := b[:n-4], binary.LittleEndian.Uint32(b[n-4:])
	if want := base.Checksum(id, int64(from), b); want != sum {
		offheap.Free(b)
		return nil, base.Corrupt(name, int64(from), want, sum)
	}
	return b, nil
}

// ReadAt reads all of b at off. A file that ends before is damage; one that cannot be
// read at the second attempt either is base.ErrUnreadable.
func ReadAt(f vfs.File, name string, b []byte, off int64) error {
	var err error
	for range 2 {
		var n int
		n, err = f.ReadAt(b, off)
		switch {
		case n == len(b):
			return nil
		case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return base.Corrupt(name, off, fmt.Sprintf("%d bytes", len(b)), fmt.Sprintf("the end of the file after %d", n))
		}
	}
	return fmt.Errorf("%w: %s at %d: %w", base.ErrUnreadable, name, off, err)
}
