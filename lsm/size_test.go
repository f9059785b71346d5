package lsm

import (
	"os"
	"testing"
)

// torture asks for the long versions of the tests.
var torture = os.Getenv("KVSTORE_TORTURE") != ""

// sized gives the steps or rounds of a test: all there are under KVSTORE_TORTURE, the
// usual, or a few for -short and the race detector, which is for what runs in parallel.
func sized[N int | int64 | uint64 | bool](all, usual, few N) N {
	switch {
	case torture:
		return all
	case raceEnabled || testing.Short():
		return few
	}
	return usual
}
