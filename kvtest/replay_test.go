package kvtest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplayCommand(t *testing.T) {
	require.Equal(t, "go test example.com/kvstore/kvtest -count=1 -run '^TestA$/^b c$' -seed 7", replayCommand("TestA/b c/seed=7", 7))
	require.Equal(t, "go test example.com/kvstore/kvtest -count=1 -run '^TestA$' -seed 9", replayCommand("TestA", 9))
}
