package kvtest

import (
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
	"time"
)

// replayCommand is what runs one test with one seed again.
func replayCommand(test string, seed uint64) string {
	test, _, _ = strings.Cut(test, "/seed=")
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return fmt.Sprintf("go test %s -count=1 -run '%s' -seed %d", testedPackage(), strings.Join(parts, "/"), seed)
}

// testedPackage is the import path of the package under test, as far as the
// binary tells.
func testedPackage() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		if path, ok := strings.CutSuffix(info.Path, ".test"); ok {
			return path
		}
	}
	return "."
}

// die ends a process whose bubble is stuck.
func die(test string, seed uint64, stall time.Duration, stacks []byte) {
	fmt.Fprintf(os.Stderr, "%s\nkvtest: %s: nothing happened for %v of real time; seed %d; replay: %s\n", stacks, test, stall, seed, replayCommand(test, seed))
	os.Exit(2)
}
