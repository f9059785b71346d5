package lsm

import (
	"bytes"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/internal/cache"
	"example.com/kvstore/lsm/internal/table"
	"example.com/kvstore/vclock"
)

// A lookup is the memory of one read. A record found in a table aliases the
// scratch that it was read with, so that the next table needs the other one.
type lookup struct {
	slot    int // where its versions are counted; a core tends to get the lookups that it had
	scratch [2]table.Scratch
	copied  []byte // memory for the cache's copy of a value, a segment at most
	free    int    // the scratch that holds nothing of r
	r       Record
	found   bool
	below   bool // some of r was in a table
}

// join takes in a record that may alias the free scratch.
func (l *lookup) join(t *Tree, key []byte, r *Record, scratch bool) {
	switch {
	case !l.found:
		l.r, l.found = *r, true
		if scratch {
			l.free = 1 - l.free
		}
	case l.r.Kind == Causal || r.Kind == Causal || l.r.Max == r.Max:
		l.r.Key = key // its own may be in a scratch that another table was read with
		l.r = t.join(l.r, *r)
		l.r.Value = bytes.Clone(l.r.Value) // it may be in either scratch
	case l.r.Max.Less(r.Max):
		l.r = *r
		if scratch {
			l.free = 1 - l.free
		}
	}
}

// settles reports whether nothing with dots up to d can change the result. Only
// a plain record above d does: a causal one may lack siblings that are below.
func (l *lookup) settles(d vclock.Dot) bool {
	if !l.found || l.r.Kind == Causal && base.Defences.EndPlain {
		return false
	}
	return d.Less(l.r.Max) || d == l.r.Max && !base.Defences.EndStrict
}

// memory looks into the memtables.
func (l *lookup) memory(t *Tree, v *version, token uint64, key []byte) {
	l.r, l.found, l.below = Record{}, false, false
	for _, m := range v.mems {
		if r, ok := m.Get(token, key); ok {
			l.join(t, key, &r, false)
		}
	}
}

// tables looks into the tables, highest max dot first.
func (l *lookup) tables(t *Tree, v *version, token uint64, key []byte) error {
	grace := &t.metadata.grace
	in := grace.enter(l.slot)
	for _, u := range v.slices[t.slice(token)] {
		if l.settles(u.maxDot) {
			break
		}
		f := u.find(token)
		if f == nil || l.settles(f.MaxDot) || !f.admits(token) || v.hides(f, token) {
			continue
		}
		o := f.pinned()
		leave(in)
		if err := l.table(t, f, o, token, key); err != nil {
			return err
		}
		in = grace.enter(l.slot)
	}
	leave(in)
	return v.lost(token, l)
}

// table looks into one table, whose filter admits the token if o has it pinned,
// and releases the pin.
func (l *lookup) table(t *Tree, f *tableFile, o *opened, token uint64, key []byte) error {
	if o == nil {
		var err error
		if o, err = f.open(); err != nil {
			return err
		}
		if !o.MayContain(token) {
			t.releaseAll(o)
			return nil
		}
	}
	t.stats.tableReads.Add(1)
	r, ok, err := o.Get(token, key, &l.scratch[l.free])
	t.releaseAll(o)
	if err != nil {
		return f.hurt(err)
	}
	if ok {
		l.join(t, key, &r, true)
		l.below = true
	} else {
		t.stats.falsePositives.Add(1)
	}
	return nil
}

// full looks everywhere, memtables first, and keeps a copy of what it had to read
// from tables. The ticket is older than the version.
func (l *lookup) full(t *Tree, v *version, ticket cache.Ticket, token uint64, key []byte) error {
	l.memory(t, v, token, key)
	if l.cached(t, v, token, key) {
		return nil
	}
	if err := l.tables(t, v, token, key); err != nil {
		return err
	}
	l.fill(t, ticket, token, key)
	return nil
}

// Get gives a copy of the value of a key: not ok when there is none, or it was
// deleted, or has expired. Of a causal record it is the newest live sibling.
func (t *Tree) Get(key []byte) (value []byte, ok bool, err error) { return t.AppendGet(nil, key) }

// AppendGet is Get, appending the value to dst. It allocates nothing when dst is
// large enough and the key is in a memtable, in the cache, or in a table that was
// read before.
func (t *Tree) AppendGet(dst, key []byte) ([]byte, bool, error) {
	token := base.Token(key)
	ticket := t.beginRead(token)
	l := t.lookups.Get().(*lookup)
	v := t.acquire(l.slot)
	if v == nil {
		t.lookups.Put(l)
		return dst, false, ErrClosed
	}
	err := l.full(t, v, ticket, token, key)
	ok := false
	if err == nil && l.found {
		var value []byte
		if value, ok, err = t.live(&l.r); ok {
			dst = append(dst, value...)
		}
	}
	l.r = Record{}
	t.release(v, l.slot)
	t.lookups.Put(l)
	return dst, ok, err
}

// live gives the value that a reader of r sees.
func (t *Tree) live(r *Record) (value []byte, ok bool, err error) {
	switch r.Kind {
	case Tombstone:
		return nil, false, nil
	case Value:
		return r.Value, !t.expired(r.Deadline), nil
	}
	s, err := vclock.DecodeSet(r.Value)
	if err != nil {
		return nil, false, err
	}
	for i := range s.Siblings {
		if b := &s.Siblings[i]; !b.Tombstone && !t.expired(b.Deadline) {
			return b.Value, true, nil
		}
	}
	return nil, false, nil
}

func (t *Tree) expired(deadline int64) bool {
	return deadline != 0 && deadline <= t.o.Now().UnixMilli()
}

// Read gives all that the tree knows of a key, with dots, kind and deadline; a
// deleted key has a record too. The record's slices are the caller's own.
func (t *Tree) Read(key []byte) (Record, bool, error) { return t.ReadToken(base.Token(key), key) }

// ReadToken is Read for a key with the given token.
func (t *Tree) ReadToken(token uint64, key []byte) (Record, bool, error) {
	ticket := t.beginRead(token)
	l := t.lookups.Get().(*lookup)
	defer t.lookups.Put(l)
	v := t.acquire(l.slot)
	if v == nil {
		return Record{}, false, ErrClosed
	}
	defer t.release(v, l.slot)
	if err := l.full(t, v, ticket, token, key); err != nil || !l.found {
		return Record{}, false, err
	}
	r := l.r
	r.Key, r.Value = bytes.Clone(key), bytes.Clone(l.r.Value)
	l.r = Record{}
	return r, true, nil
}

// needsTables reports, from memory, whether a table may hold more of the key.
func (l *lookup) needsTables(t *Tree, v *version, token uint64) bool {
	in := t.metadata.grace.enter(l.slot)
	defer leave(in)
	for _, u := range v.slices[t.slice(token)] {
		if l.settles(u.maxDot) {
			return false
		}
		if f := u.find(token); f != nil && !l.settles(f.MaxDot) && f.admits(token) {
			return true
		}
	}
	return false
}

// ReadMemory is ReadToken from memory alone: it never touches the disk and never
// blocks. Not certain means that a table may hold more of the key, or that the
// tree is closed. The record's value is appended to dst, so that it is dst's
// memory where that suffices; its key is the argument.
func (t *Tree) ReadMemory(token uint64, key, dst []byte) (r Record, found, certain bool) {
	l := t.lookups.Get().(*lookup)
	defer t.lookups.Put(l)
	v := t.acquire(l.slot)
	if v == nil {
		return Record{}, false, false
	}
	defer t.release(v, l.slot)
	l.memory(t, v, token, key)
	certain = l.cached(t, v, token, key) || !l.needsTables(t, v, token) && v.lost(token, l) == nil
	r, found = l.r, l.found
	if found {
		n := len(dst)
		r.Key, r.Value = key, append(dst, r.Value...)[n:]
	}
	l.r = Record{}
	return r, found, certain
}

// Overwritten reports, from memory, whether what was written last of a token are plain
// records above d: they supersede whatever has dots up to d, at their keys.
func (t *Tree) Overwritten(token uint64, d vclock.Dot) bool {
	v := t.acquire(0)
	if v == nil {
		return false
	}
	defer t.release(v, 0)
	for _, m := range v.mems {
		some, all := false, true
		m.At(token, func(r Record) {
			some = true
			all = all && r.Kind != Causal && d.Less(r.Max)
		})
		if some {
			return all
		}
	}
	return false
}
