package transport

// budget bounds the memory of large messages while they are received. It counts
// in units; a reader takes all units of its message before it allocates.
type budget struct {
	turn  chan struct{} // capacity 1: held while units are taken, so nobody holds a part for ever
	units chan struct{} // what is taken; its capacity is the budget
}

const budgetUnit = 64 << 10

func newBudget(bytes int) *budget {
	return &budget{turn: make(chan struct{}, 1), units: make(chan struct{}, (bytes+budgetUnit-1)/budgetUnit)}
}

func unitsOf(bytes int) int { return (bytes + budgetUnit - 1) / budgetUnit }

// take waits until bytes are free; false if done was closed first. Those who
// hold units finish or fail within FrameTimeout, so the wait ends.
func (b *budget) take(bytes int, done <-chan struct{}) bool {
	select {
	case b.turn <- struct{}{}:
	case <-done:
		return false
	}
	defer func() { <-b.turn }()
	for i := range min(unitsOf(bytes), cap(b.units)) {
		select {
		case b.units <- struct{}{}:
		case <-done:
			for range i {
				<-b.units
			}
			return false
		}
	}
	return true
}

// give returns what take took.
func (b *budget) give(bytes int) {
	for range min(unitsOf(bytes), cap(b.units)) {
		<-b.units
	}
}
