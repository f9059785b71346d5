package kvstore

// defences are rules of the data path that a test may switch off, one at a time
// and before any node is opened, to prove that simulations notice. They are on
// in every program.
var defences = struct {
	WriteBack bool // of what a quorum read joined (I4)
	Restamp   bool // of writes that an owner calls superseded (I4)
	Hints     bool // for owners that missed a write (I3)
}{true, true, true}
