package kvstore

import (
	"fmt"
	"time"

	"example.com/kvstore/replica"
)

// Consistency is a level: how many of a key's owners must answer before a call
// returns. It is itself an option of every verb: db.Get(ctx, k, kvstore.One). Of
// several in one call the last counts.
type Consistency uint8

const (
	// Default is the level in Options.
	Default Consistency = iota
	// One owner's answer is enough.
	One
	// Quorum is a majority of the owners. Reads and writes at Quorum intersect.
	Quorum
	// All owners.
	All
	// LocalOne is one owner in the data centre of the node that is asked.
	LocalOne
	// LocalQuorum is a majority of the owners in that data centre. Reads and writes
	// there intersect; those in different data centres need not.
	LocalQuorum
	// EachQuorum is a majority of the owners in every data centre that has some. It
	// intersects with every LocalQuorum.
	EachQuorum
)

// atLeastBase separates AtLeast(n) from the named levels.
const atLeastBase Consistency = 128

// AtLeast is the level of n owners. n below 1, or above the number of replicas,
// is refused by the call that uses it.
func AtLeast(n int) Consistency {
	return atLeastBase + Consistency(min(max(n, 0), 127)) // more than MaxReplicas is refused whatever it is
}

// String gives the level's name.
func (c Consistency) String() string {
	names := [...]string{"default", "one", "quorum", "all", "local one", "local quorum", "each quorum"}
	switch {
	case c == atLeastBase+127:
		return "at least 127 or more"
	case c == atLeastBase:
		return "at least 0 or less"
	case c > atLeastBase:
		return fmt.Sprintf("at least %d", c-atLeastBase)
	case int(c) < len(names):
		return names[c]
	}
	return fmt.Sprintf("level %d", uint8(c))
}

// required is the number of owners, out of owners, that must answer, or
// ErrInvalid for a level that a key with so many can never meet. Default must
// have been resolved.
func (c Consistency) required(owners int) (int, error) {
	need := 0
	switch {
	case c == One:
		need = 1
	case c == Quorum:
		need = owners/2 + 1
	case c == All:
		need = owners
	case c == LocalOne, c == LocalQuorum, c == EachQuorum:
		need = 1 // at least: see need
	case c > atLeastBase:
		need = int(c - atLeastBase)
	}
	switch {
	case need == 0:
		return 0, invalid("unknown level %q; use One, Quorum, All, AtLeast(n) with n from 1, LocalOne, LocalQuorum or EachQuorum", c)
	case need > owners:
		return 0, invalid("level %q needs more owners than a key has, which is %d; add nodes or lower the level", c, owners)
	}
	return need, nil
}

// need is which of the targets must answer.
func (c Consistency) need(targets []target) (replica.Need, error) {
	var need replica.Need
	switch c {
	case LocalOne, LocalQuorum:
		var near replica.Group
		for i := range targets {
			if targets[i].near {
				near.Of |= 1 << i
				near.Count++
			}
		}
		if near.Count == 0 {
			return need, ErrUnavailable
		}
		if near.Count = near.Count/2 + 1; c == LocalOne {
			near.Count = 1
		}
		need.Groups = []replica.Group{near}
		return need, nil
	case EachQuorum:
		centres := map[string]int{}
		for i := range targets {
			g, ok := centres[targets[i].centre]
			if !ok {
				g = len(need.Groups)
				centres[targets[i].centre] = g
				need.Groups = append(need.Groups, replica.Group{})
			}
			need.Groups[g].Of |= 1 << i
			need.Groups[g].Count++
		}
		for g := range need.Groups {
			need.Groups[g].Count = need.Groups[g].Count/2 + 1
		}
		return need, nil
	}
	var err error
	need.Count, err = c.required(len(targets))
	return need, err
}

// local reports whether only owners in the own data centre count.
func (c Consistency) local() bool { return c == LocalOne || c == LocalQuorum }

// A GetOption is an option of Get. The set is closed.
type GetOption interface{ getOption() }

// A PutOption is an option of Put. The set is closed.
type PutOption interface{ putOption() }

// A DeleteOption is an option of Delete. The set is closed.
type DeleteOption interface{ deleteOption() }

// A WriteOption is an option of Put and of Delete. The set is closed.
type WriteOption interface {
	PutOption
	DeleteOption
}

// A CounterOption is an option of Counter.Add. The set is closed.
type CounterOption interface{ counterOption() }

// A ChangeOption is an option of what changes a Set, a Map or a Register. The set is
// closed.
type ChangeOption interface{ changeOption() }

// A BatchOption is an option of Apply. The set is closed.
type BatchOption interface{ batchOption() }

// A ScanOption is an option of Scan. The set is closed.
type ScanOption interface{ scanOption() }

func (Consistency) getOption()     {}
func (Consistency) putOption()     {}
func (Consistency) deleteOption()  {}
func (Consistency) counterOption() {}
func (Consistency) changeOption()  {}
func (Consistency) batchOption()   {}
func (Consistency) scanOption()    {}

type ttlOption time.Duration

func (ttlOption) putOption() {}

// TTL makes the value expire d after the coordinator stamped it. d is at least
// one millisecond; finer parts are dropped.
func TTL(d time.Duration) PutOption { return ttlOption(d) }

type sloppyOption uint8

// Sloppy lets a Put or Delete count hints: for each owner that is down another member
// keeps the write, durably, and counts towards the level in its place, until it has
// handed the write over. So writes go on where fewer owners are up than the level needs.
// Reads do not ask those members: what was written is not lost, but may not be seen at
// any level before it was handed over.
//
// It needs a cluster that was formed with Options.SloppyQuorum; elsewhere it is
// ErrInvalid. A causal write needs one live owner all the same, which coordinates it.
const Sloppy sloppyOption = 1

func (sloppyOption) putOption()    {}
func (sloppyOption) deleteOption() {}

type replacesOption struct{ version Version }

// Replaced gives v, for those who keep a record of calls (kvtest does).
func (r replacesOption) Replaced() Version { return r.version }

func (replacesOption) putOption()    {}
func (replacesOption) deleteOption() {}

// Replaces makes the write causal: it supersedes exactly what v has seen, the
// version of an Item that was read or what an earlier Put returned. Values that v
// has not seen become siblings. Of several the last counts.
//
// It is no condition: the write never fails because the key has changed.
func Replaces(v Version) WriteOption { return replacesOption{v} }
