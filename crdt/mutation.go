package crdt

import (
	"fmt"

	"example.com/kvstore/vclock"
)

// A Mutation is a change of a value, to be applied where the value is.
type Mutation struct {
	// Kind is the value's: CounterKind, SetKind or MapKind.
	Kind Kind
	// Field of a map is what changes.
	Field Field
	// Remove removes the field, as far as it was seen.
	Remove bool

	// Delta is counted, once for each Request but "".
	Delta   int64
	Request string
	// Add and Drop are elements of a set. What is in both is in the set afterwards.
	Add, Drop []string
	// Value is assigned to a register.
	Value []byte
}

// target is the kind of what changes.
func (m *Mutation) target() Kind {
	if m.Kind == MapKind {
		return m.Field.Kind
	}
	return m.Kind
}

// Check reports what is wrong with a mutation: ErrLimit for what is too long, and
// ErrKind for a kind that the place cannot have.
func (m *Mutation) Check() error {
	switch m.Kind {
	case CounterKind, SetKind:
		if m.Field != (Field{}) || m.Remove {
			return fmt.Errorf("%w: a %v has no fields", ErrKind, m.Kind)
		}
	case MapKind:
		if k := m.Field.Kind; k != CounterKind && k != SetKind && k != RegisterKind {
			return fmt.Errorf("%w: a field cannot be a %v", ErrKind, k)
		}
	default:
		return fmt.Errorf("%w: a value cannot be a %v", ErrKind, m.Kind)
	}
	if n := len(m.Request); n > MaxRequestBytes {
		return fmt.Errorf("%w: a request id of %d bytes, at most %d", ErrLimit, n, MaxRequestBytes)
	}
	for _, names := range [...][]string{{m.Field.Name}, m.Add, m.Drop} {
		for _, name := range names {
			if n := len(name); n > MaxNameBytes {
				return fmt.Errorf("%w: a name of %d bytes, at most %d", ErrLimit, n, MaxNameBytes)
			}
		}
	}
	return nil
}

// Apply returns the state after m, under dot d, which no mutation has had: it must be
// above all earlier ones of its actor, which s must reflect. It takes time in
// proportion to the size of the state. It fails with ErrKind for a state of another
// kind, with ErrOverflow, and with what Check says.
//
// Apply panics if the context of s contains d: what it does would count as seen, and
// be lost.
func (s State) Apply(m Mutation, d vclock.Dot) (State, error) {
	if err := m.Check(); err != nil {
		return State{}, err
	}
	if s.context.Contains(d) {
		panic(fmt.Sprintf("crdt: dot %v of a mutation is in %v", d, s.context))
	}
	if s.kind != 0 && s.kind != m.Kind {
		return State{}, fmt.Errorf("%w: a %v, not a %v", ErrKind, s.kind, m.Kind)
	}
	next := State{m.Kind, s.context.Add(d), s.store}
	var err error
	if m.Kind != MapKind {
		if next.store, err = s.store.apply(&m, d); err != nil {
			return State{}, err
		}
		return next, nil
	}
	f := field{name: m.Field.Name, kind: m.Field.Kind}
	if !m.Remove {
		if i, ok := findField(s.store.fields, f.name, f.kind); ok {
			f.store = s.store.fields[i].store
		}
		if f.store, err = f.store.apply(&m, d); err != nil {
			return State{}, err
		}
	}
	next.store.fields = setField(s.store.fields, f)
	return next, nil
}

// apply changes what m has for its target.
func (s store) apply(m *Mutation, d vclock.Dot) (store, error) {
	var err error
	switch m.target() {
	case CounterKind:
		s.counter, err = s.counter.add(d, m.Delta, m.Request)
	case SetKind:
		s.set = s.set.change(d, m.Add, m.Drop)
	case RegisterKind:
		s.register = register{{d, m.Value}}
	}
	return s, err
}
