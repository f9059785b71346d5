package kvstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
)

// TestIntakeRests: what nobody waits for rests while there are clients.
func TestIntakeRests(t *testing.T) {
	var i intake
	i.mu.throttle = replica.NewThrottle(intakeRate, intakeBurst)
	begun := now()
	require.Zero(t, i.rest(begun, time.Millisecond))
	i.mu.throttle.Served(begun, time.Microsecond)
	require.Equal(t, (workShare-1)*time.Millisecond, i.rest(begun, time.Millisecond))
	require.Zero(t, i.rest(begun.Add(time.Minute), time.Second), "the clients are gone")
}

// TestSpreadToken: keys that are many have different tokens, all of the system's.
func TestSpreadToken(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range uint64(1000) {
		hint := replica.Hint{Target: 1, KeyRecord: replica.KeyRecord{Key: []byte{byte(i), byte(i >> 8)}}}
		token := spreadToken(hint.StoreKey())
		require.True(t, lastToken < token && token < systemToken)
		require.Less(t, lsm.Token(hint.StoreKey()), uint64(firstSystem))
		seen[token] = true
	}
	require.Len(t, seen, 1000)
}
