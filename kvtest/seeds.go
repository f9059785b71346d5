package kvtest

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "kvtest: the only seed that Seeds runs")
	seedsFlag = flag.Int("seeds", 0, "kvtest: how many seeds Seeds runs, instead of its default")
)

// tortureSeeds is how many times more seeds run under KVSTORE_TORTURE=1.
const tortureSeeds = 100

// Seeds runs a test for seeds 1 to n, each as a subtest. The flag -seeds changes
// n, KVSTORE_TORTURE=1 multiplies it, and -seed runs one seed alone.
func Seeds(t *testing.T, n int, test func(t *testing.T, seed uint64)) {
	t.Helper()
	if *seedFlag != 0 {
		test(t, *seedFlag)
		return
	}
	if os.Getenv("KVSTORE_TORTURE") != "" {
		n *= tortureSeeds
	}
	if *seedsFlag > 0 {
		n = *seedsFlag
	}
	for seed := uint64(1); seed <= uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { test(t, seed) })
	}
}
