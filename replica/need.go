package replica

// A Need says which owners must answer: Count of all of them, and of each group as
// many as that says. The zero Need needs none.
type Need struct {
	Count  int
	Groups []Group
}

// A Group is a set of owners, a bit each, of which Count must answer.
type Group struct {
	Of    uint64
	Count int
}

// None reports whether no answer is needed.
func (n Need) None() bool { return n.Count == 0 && len(n.Groups) == 0 }

// Total is the least number of answers that can be enough.
func (n Need) Total() int {
	sum := 0
	for _, g := range n.Groups {
		sum += g.Count
	}
	return max(sum, n.Count)
}

// Possible reports whether owners without those in failed can meet the need.
func (n Need) Possible(failed uint64, owners int) bool {
	return n.met((1<<owners - 1) &^ failed)
}

// met reports whether the answers of set are enough.
func (n Need) met(set uint64) bool {
	if count(set) < n.Count {
		return false
	}
	for _, g := range n.Groups {
		if count(set&g.Of) < g.Count {
			return false
		}
	}
	return true
}
