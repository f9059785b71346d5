package gossip

import (
	"os"
	"runtime/debug"
	"testing"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(800) // millions of short-lived messages over small tables
	os.Exit(m.Run())
}
