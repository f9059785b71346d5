package crdt

import (
	"cmp"
	"slices"
	"strings"

	"example.com/kvstore/vclock"
)

// A field is one entry of a map. Its name and its kind name it, so that fields of
// one name and different kinds stand beside each other and never have to merge. A field
// in which nothing is left is not there.
type field struct {
	name  string
	kind  Kind
	store store
}

func (f *field) compare(g *field) int {
	return cmp.Or(strings.Compare(f.name, g.name), cmp.Compare(f.kind, g.kind))
}

func findField(fields []field, name string, kind Kind) (int, bool) {
	return slices.BinarySearchFunc(fields, field{name: name, kind: kind}, func(f, g field) int { return f.compare(&g) })
}

// setField returns fields with one changed.
func setField(fields []field, f field) []field {
	i, ok := findField(fields, f.name, f.kind)
	out := slices.Clone(fields)
	switch {
	case ok && f.store.empty():
		return slices.Delete(out, i, i+1)
	case ok:
		out[i] = f
		return out
	case f.store.empty():
		return out
	}
	return slices.Insert(out, i, f)
}

func joinFields(a []field, seenA vclock.History, b []field, seenB vclock.History) []field {
	var j []field
	for len(a) > 0 || len(b) > 0 {
		var f field
		var x, y store
		switch order := compareFirst(len(a), len(b), func() int { return a[0].compare(&b[0]) }); {
		case order < 0:
			f, x, a = a[0], a[0].store, a[1:]
		case order > 0:
			f, y, b = b[0], b[0].store, b[1:]
		default:
			f, x, y, a, b = a[0], a[0].store, b[0].store, a[1:], b[1:]
		}
		if f.store = join(x, seenA, y, seenB); !f.store.empty() {
			j = append(j, f)
		}
	}
	return j
}

// A Field names an entry of a map: fields of one name and different kinds are
// different fields.
type Field struct {
	Name string
	Kind Kind
}

// Fields are those of a map, by name, then kind.
func (s State) Fields() []Field {
	out := make([]Field, len(s.store.fields))
	for i, f := range s.store.fields {
		out[i] = Field{f.name, f.kind}
	}
	return out
}

// Field gives an entry of a map, to be read, and whether it is there.
func (s State) Field(f Field) (State, bool) {
	i, ok := findField(s.store.fields, f.Name, f.Kind)
	if !ok {
		return State{}, false
	}
	return State{kind: f.Kind, context: s.context, store: s.store.fields[i].store}, true
}
