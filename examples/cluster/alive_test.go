package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// alive reports whether there is a process with this id. One that ended and that
// nobody has waited for, as may happen to orphans in a container, is not.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || p.Signal(syscall.Signal(0)) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // pid (name) state …
	_, state, found := bytes.Cut(stat, []byte(") "))
	return err != nil || !found || state[0] != 'Z'
}
