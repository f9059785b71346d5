package table

import (
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"example.com/kvstore/lsm/internal/base"
)

// verifyBytes is what Verify reads between two calls of pace.
const verifyBytes = 256 << 10

// Verify reads the whole file and checks everything: the hash of the file,
// every block, the order of the records, the properties, and that the filter
// admits every record. It calls pace, if not nil, with the bytes that it is
// about to read, and ends with the error that pace returns. Damage is a
// *base.CorruptError.
func (r *Reader) Verify(pace func(bytes int) error) error {
	if err := r.VerifyHash(pace); err != nil {
		return err
	}
	return r.verifyRecords()
}

// VerifyHash is Verify without a look into the blocks: every byte is the one that
// was written, if those were right.
func (r *Reader) VerifyHash(pace func(bytes int) error) error {
	hash, buf := xxhash.New(), make([]byte, min(verifyBytes, r.foot.at))
	for off := uint64(0); off < r.foot.at; off += uint64(len(buf)) {
		buf = buf[:min(uint64(len(buf)), r.foot.at-off)]
		if pace != nil {
			if err := pace(len(buf)); err != nil {
				return err
			}
		}
		if err := ReadAt(r.f, r.name, buf, int64(off)); err != nil {
			return err
		}
		hash.Write(buf)
	}
	if found := hash.Sum64(); found != r.meta.Hash {
		return base.Corrupt(r.name, 0, fmt.Sprintf("hash %016x", r.meta.Hash), fmt.Sprintf("%016x", found))
	}
	if foot, err := readFooter(r.f, r.meta.ID); err != nil || foot != r.foot {
		if err == nil {
			err = base.Corrupt(r.name, int64(r.foot.at), "the footer as it was at opening", "another")
		}
		return err
	}
	return nil
}

// verifyRecords counts all records again, in the order of the file.
func (r *Reader) verifyRecords() error {
	found := Meta{ID: r.meta.ID, Bytes: r.meta.Bytes, Hash: r.meta.Hash}
	var lastKey []byte
	it := r.Iter(0, math.MaxUint64)
	defer it.Close()
	for it.Next() {
		rec := it.Record()
		if found.Count > 0 && rec.Compare(found.MaxToken, lastKey) <= 0 {
			return base.Corrupt(r.name, int64(r.index.offset[it.next-1]), "records in order", "another order")
		}
		if it.at.i == 1 && rec.Token != it.block.first {
			return base.Corrupt(r.name, int64(r.index.offset[it.next-1]), "the first token of the index", "another")
		}
		if !r.filter.mayContain(rec.Token) {
			return base.Corrupt(r.name, int64(r.foot.filter), "a filter that admits every record", "one that does not")
		}
		found.add(rec)
		lastKey = append(lastKey[:0], rec.Key...)
	}
	if err := it.Err(); err != nil {
		return err
	}
	if found != r.meta {
		return base.Corrupt(r.name, int64(r.foot.properties), fmt.Sprintf("%+v", r.meta), fmt.Sprintf("%+v in the records", found))
	}
	return nil
}
