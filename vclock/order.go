package vclock

// An Order is the outcome of comparing two histories or two sets. It is a
// partial order: neither may come first.
type Order uint8

const (
	Equal      Order = iota // both have seen the same
	Before                  // the other has seen all this one has, and more
	After                   // this one has seen all the other has, and more
	Concurrent              // each has seen something that the other has not
)

func (o Order) String() string {
	return [...]string{"equal", "before", "after", "concurrent"}[o]
}

// order tells the four cases apart by whether each side covers the other.
func order(covers, covered bool) Order {
	switch {
	case covers && covered:
		return Equal
	case covered:
		return Before
	case covers:
		return After
	}
	return Concurrent
}
