package wal

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/internal/base"
)

// TestLead has lone writers stand in for the log's goroutine, and wakes it for what
// came meanwhile and for those who are not alone.
func TestLead(t *testing.T) {
	b := NewBuffer(1 << 20)
	defer b.Free()
	entry := Entry{Batch: []base.Record{{Key: []byte("k")}}}
	woken, alone := make(chan struct{}), make(chan bool, 1)
	defer close(alone)
	go func() {
		for a := range alone {
			b.Wait(a)
			woken <- struct{}{}
		}
	}()
	wait := func(a bool) { // until it sleeps
		alone <- a
		for asleep := false; !asleep; runtime.Gosched() {
			b.mu.Lock()
			asleep = b.mu.asleep
			b.mu.Unlock()
		}
	}
	lead := func() bool {
		leads, err := b.Lead(entry)
		require.NoError(t, err)
		return leads
	}

	wait(true)
	for range 3 {
		require.True(t, lead())
		require.False(t, lead(), "there is one already")
		require.Len(t, b.Take().Entries, 2)
		b.HandBack(true) // nothing to do: it sleeps on
	}
	require.True(t, lead())
	b.Take()
	require.NoError(t, b.Append(entry))
	b.HandBack(true)
	<-woken
	b.Take()

	wait(false)
	require.False(t, lead(), "writers in company wake it")
	<-woken
	b.Take()

	wait(true)
	require.True(t, lead())
	b.Kick()
	b.Take()
	b.HandBack(false)
	<-woken
}
