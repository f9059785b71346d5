package base

// Defences are the engine's rules that a test may switch off, one at a time and
// before a tree is opened, to prove that the tests notice. They are on in every
// program.
var Defences = struct {
	// What is on the disk.
	ChecksumPlace bool // a checksum covers file and offset
	BlockChecksum bool // a block is verified before it is used
	TableSync     bool // a table is synced before the manifest names it
	TableDirSync  bool // and so is its name
	ManifestSync  bool // an edit is synced before it counts
	ManifestSeal  bool // an edit whose sync may have failed is written again by Open
	// The commit log.
	GroupSync     bool // a group is synced before it is acknowledged
	GroupVisible  bool // and before it is shown
	FailedSync    bool // the first failed sync is final
	SegmentSync   bool // a segment is synced before the next one begins
	TornOrDamaged bool // a bad group before one that calls it durable is damage
	LogEnd        bool // a log that was closed is all there
	RewriteTail   bool // Open writes groups again that may never have been synced
	ReleaseLast   bool // a segment is released after the edit that replaces it
	SealWaits     bool // a memtable is flushed when its last writer has left
	// Reads.
	EndPlain  bool // only a plain record ends a read early
	EndStrict bool // and only strictly above what is below
	HoldFiles bool // a file stays while a reader's version has it
	Restamp   bool // a put that may be superseded is stamped again
	// Purges.
	PurgeHorizon   bool // only behind the horizon
	PurgeTables    bool // not while another table may hold something older
	PurgeMemtables bool // nor a memtable
	PurgeStrays    bool // nor the log
}{
	true, true, true, true, true, true,
	true, true, true, true, true, true, true, true, true,
	true, true, true, true,
	true, true, true, true,
}
