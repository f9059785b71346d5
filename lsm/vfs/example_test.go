package vfs_test

import (
	"fmt"

	"example.com/kvstore/lsm/vfs"
)

// A power cut before each operation of a workload, and what each leaves.
func ExampleCrashEach() {
	disk := vfs.NewMem(1)
	fsys := vfs.Faulty(disk, vfs.CrashEach(disk, 1, func(op vfs.Op, found *vfs.Mem) {
		names, _ := found.List("")
		fmt.Println(op, names)
	}))

	f, _ := fsys.Create("new")
	f.WriteAt([]byte("content"), 0)
	f.Sync()
	fsys.SyncDir(".")
	fsys.Rename("new", "current")
	fsys.SyncDir(".")
	f.Close()
	names, _ := disk.Strict().List("")
	fmt.Println("at last", names)
	// Output:
	// #0 create new []
	// #1 write new [0, 7) [new]
	// #2 sync new [new]
	// #3 sync directory . []
	// #4 rename new to current [new]
	// #5 sync directory . [current]
	// at last [current]
}
