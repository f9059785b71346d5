package lsm

import (
	"errors"
	"fmt"
	"iter"

	"example.com/kvstore/lsm/internal/manifest"
)

// Ingest makes tables of records directly, past log and memtable, as a stream
// from another tree brings them: in (token, key) order, each key once. They are
// joined with what is there, like those of Apply. On return all of them are
// visible and durable; after an error none is. Each is read before the next is
// asked for, and none is kept. ErrOverloaded says that compaction is behind: try
// again later.
func (t *Tree) Ingest(records iter.Seq[Record]) error {
	if !t.hold() {
		return ErrClosed
	}
	defer t.letGo()
	if err := t.writable(); err != nil {
		return err
	}
	if t.crowded() {
		return ErrOverloaded
	}
	out := output{t: t}
	if err := t.takeIn(&out, records); err != nil {
		return t.ingestError(out.abandon(err))
	}
	tables, err := out.finish()
	if err != nil {
		return t.ingestError(out.abandon(err))
	}
	if len(tables) == 0 {
		return nil
	}
	var e manifest.Edit
	for _, f := range tables {
		e.Add = append(e.Add, f.Table)
		t.stats.ingestedBytes.Add(f.Bytes)
	}
	from := stale{lo: tables[0].MinToken, hi: tables[len(tables)-1].MaxToken}
	err = t.changeBelow(from, func() error {
		return t.edit(e, func(v *version) { v.replace(nil, tables) })
	})
	if err != nil {
		return t.ingestError(out.abandon(err))
	}
	kick(t.compactKick)
	return nil
}

// takeIn writes the records to out.
func (t *Tree) takeIn(out *output, records iter.Seq[Record]) error {
	var last Record
	var one [1]Record
	for r := range records {
		if t.closing.Load() {
			return ErrClosed
		}
		one[0] = r
		if _, err := t.check(one[:]); err != nil {
			return err
		}
		if last.Key != nil && one[0].Compare(last.Token, last.Key) <= 0 {
			return fmt.Errorf("%w: records are not in the order of tokens and keys: token %016x after %016x", ErrInvalid, r.Token, last.Token)
		}
		last.Token, last.Key = r.Token, append(last.Key[:0], r.Key...)
		if err := out.add(&one[0]); err != nil {
			return err
		}
	}
	return nil
}

// ingestError ends all writing after an error of the disk, like that of a flush.
func (t *Tree) ingestError(err error) error {
	if errors.Is(err, ErrInvalid) || errors.Is(err, ErrKeyTooLarge) || errors.Is(err, ErrValueTooLarge) {
		return err
	}
	return t.judge(err)
}

// hold keeps Close from taking the tree apart until letGo: meanwhile there is a
// version, and a manifest to edit. False: Close has begun. Who holds must not wait
// for Close, and ends soon once t.closing says so.
func (t *Tree) hold() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return false
	}
	t.holders.Add(1)
	return true
}

func (t *Tree) letGo() { t.holders.Done() }
