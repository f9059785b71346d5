package lsm

// defences are rules that a test may switch off, one at a time and before a tree
// is opened, to prove that the tests notice. They are on in every program.
var defences = struct {
	WriteThrough   bool // of what is shown, to the copies in the cache
	FillGeneration bool // a fill is dropped if its key was written meanwhile
	FillHold       bool // a fill is dropped if tables were changed meanwhile
	ForgetPurged   bool // copies of what a compaction purges are dropped
}{true, true, true, true}
