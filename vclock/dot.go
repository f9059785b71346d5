package vclock

import "fmt"

// A Dot names one write event: the stamp it was given and the actor that gave
// it. A dot is used by one write only, so two records with the same dot are the
// same write (invariant I6).
type Dot struct{ Stamp, Actor uint64 }

// Compare orders dots by stamp, then actor. It returns -1, 0 or +1.
func (d Dot) Compare(e Dot) int {
	switch {
	case d.Stamp != e.Stamp:
		if d.Stamp < e.Stamp {
			return -1
		}
		return 1
	case d.Actor != e.Actor:
		if d.Actor < e.Actor {
			return -1
		}
		return 1
	}
	return 0
}

// Less reports whether d orders before e.
func (d Dot) Less(e Dot) bool { return d.Compare(e) < 0 }

// IsZero reports whether d is the zero dot, which no write carries.
func (d Dot) IsZero() bool { return d == Dot{} }

// String gives the dot as stamp@actor in hexadecimal.
func (d Dot) String() string { return fmt.Sprintf("%x@%x", d.Stamp, d.Actor) }
