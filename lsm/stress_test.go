package lsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/vclock"
)

// A counterKey is written by one goroutine with ever higher numbers: whatever was
// acknowledged is a lower bound for what anybody may read.
type counterKey struct {
	key   []byte
	acked atomic.Uint64
	tried atomic.Uint64
}

func (c *counterKey) check(value []byte, ok bool, low uint64) error {
	var n uint64
	if ok {
		n = binary.LittleEndian.Uint64(value)
	}
	if n < low || n > c.tried.Load() {
		return fmt.Errorf("%s: read %d, acknowledged %d, written up to %d", c.key, n, low, c.tried.Load())
	}
	return nil
}

// stress runs every operation at once until stop is closed or the tree is.
func stress(tree *Tree, keys []*counterKey, stop <-chan struct{}) error {
	var wg sync.WaitGroup
	failed := make(chan error, 100)
	run := func(f func(r *rand.Rand) error) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, rand.Uint64()))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(r); errors.Is(err, ErrClosed) {
					return
				} else if err != nil && !errors.Is(err, ErrOverloaded) {
					failed <- err
					return
				}
			}
		})
	}
	for i, c := range keys {
		n := c.tried.Load()
		ready := make(chan error, 1)
		run(func(r *rand.Rand) error {
			n++
			value := binary.LittleEndian.AppendUint64(nil, n)
			value = append(value, bytes.Repeat([]byte{'x'}, r.IntN(300))...)
			c.tried.Store(n)
			var err error
			if i%2 == 0 {
				err = tree.Put(c.key, value)
			} else {
				d := vclock.Dot{Stamp: n, Actor: 5}
				tree.Submit([]Record{{Token: Token(c.key), Key: c.key, Kind: Value, Min: d, Max: d, Value: value}},
					func(err error) { ready <- err })
				err = <-ready
			}
			if err == nil {
				c.acked.Store(n)
			}
			return err
		})
	}
	for range 2 {
		run(func(r *rand.Rand) error {
			c := keys[r.IntN(len(keys))]
			low := c.acked.Load()
			v, ok, err := tree.Get(c.key)
			if err != nil {
				return err
			}
			return c.check(v, ok, low)
		})
	}
	run(func(r *rand.Rand) error { return tree.Flush() })
	run(func(r *rand.Rand) error { return tree.Compact(context.Background()) })
	run(func(r *rand.Rand) error {
		low := map[string]uint64{}
		for _, c := range keys {
			low[string(c.key)] = c.acked.Load()
		}
		n := 0
		for rec, err := range tree.Scan(0, math.MaxUint64) {
			if err != nil {
				return err
			}
			if got := binary.LittleEndian.Uint64(rec.Value); got < low[string(rec.Key)] {
				return fmt.Errorf("%s: scanned %d, acknowledged %d", rec.Key, got, low[string(rec.Key)])
			}
			delete(low, string(rec.Key))
			n++
		}
		for k, acked := range low {
			if acked > 0 {
				return fmt.Errorf("%s: not scanned", k)
			}
		}
		_ = tree.Metrics().String()
		return nil
	})
	wg.Wait()
	close(failed)
	return <-failed
}

// TestStress closes a busy tree at random points and reopens it.
func TestStress(t *testing.T) {
	rounds := sized(340, 4, 3) // of each policy
	for _, policy := range []SyncPolicy{SyncAlways, SyncNever, SyncEvery(time.Millisecond)} {
		t.Run(policy.String(), func(t *testing.T) {
			var keys []*counterKey
			for i := range 16 {
				keys = append(keys, &counterKey{key: key(i)})
			}
			fs := vfs.NewMem(1)
			o := small(fs)
			o.Sync = policy
			o.LogBufferBytes = 4 << 10
			for round := range rounds {
				tree := open(t, o)
				for _, c := range keys {
					v, ok, err := tree.Get(c.key)
					require.NoError(t, err)
					require.NoError(t, c.check(v, ok, c.acked.Load()))
				}
				done := make(chan error, 1)
				go func() { done <- stress(tree, keys, nil) }()
				// Close after so many groups, not after some time.
				for tree.stats.groups.Load() < uint64(20*round) {
					require.NoError(t, tree.Flush())
				}
				require.NoError(t, tree.Close())
				require.NoError(t, <-done)
			}
		})
	}
}
