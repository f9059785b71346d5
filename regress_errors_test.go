package kvstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/replica"
	"example.com/kvstore/transport"
)

// TestReadyAtTheEnds: a context that is over does not make a ready node unready,
// nor does readiness outlive Close.
func TestReadyAtTheEnds(t *testing.T) {
	db, err := kvstore.Open("", nil)
	require.NoError(t, err)
	ready(t, db)
	over, cancel := context.WithCancel(ctx)
	cancel()
	require.NoError(t, db.Ready(over))
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.Ready(ctx), kvstore.ErrClosed)
	require.ErrorIs(t, db.Ready(over), kvstore.ErrClosed)
}

// TestReadyTooEarly: a node that waits for its seeds says that, and why the wait
// ended.
func TestReadyTooEarly(t *testing.T) {
	db := open(t, "", &kvstore.Options{Listen: "127.0.0.1:0", Seeds: []string{"127.0.0.1:1"}})
	over, cancel := context.WithCancel(ctx)
	cancel()
	err := db.Ready(over)
	require.ErrorIs(t, err, kvstore.ErrNotReady)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, kvstore.Retryable(err))
}

// TestRefusedJoinIsFinal: to call again does not help a node that was refused.
func TestRefusedJoinIsFinal(t *testing.T) {
	simulate(t, 1, &kvtest.Options{Nodes: 2, Stopped: true}, func(c *kvtest.Cluster) {
		c.Restart(0)
		c.Ready()
		put(c, 0, "k", 1)
		c.Restart(1)
		_, put := c.Node(1).Put(ctx, "k", check.Value("k", 2, 80))
		require.False(c.T, errors.Is(put, kvstore.ErrJoinRefused), "not yet")
		require.True(c.T, kvstore.Retryable(put))
		ready := readyError(c, 1)
		_, put = c.Node(1).Put(ctx, "k", check.Value("k", 3, 80))
		for _, err := range []error{ready, put} {
			require.ErrorIs(c.T, err, kvstore.ErrJoinRefused)
			require.False(c.T, kvstore.Retryable(err))
		}
		require.NotErrorIs(c.T, ready, kvstore.ErrNotReady)
		require.ErrorIs(c.T, put, kvstore.ErrNotReady)
	})
}

// TestAdvertiseNeeded: an address that stands for all of a machine is none that
// a peer can dial.
func TestAdvertiseNeeded(t *testing.T) {
	o := kvstore.Options{ClusterKey: []byte("a secret of sixteen bytes or more")}
	for _, o.Listen = range []string{":0", "0.0.0.0:0", "[::]:0"} {
		_, err := kvstore.Open("", &o)
		require.ErrorIs(t, err, kvstore.ErrInvalid, o.Listen)
		require.ErrorContains(t, err, "Advertise", o.Listen)
	}
	o.Advertise = "127.0.0.1:1"
	open(t, "", &o)
}

// TestQuorumErrorIs: every documented error is found in a QuorumError by
// errors.Is, and none that promises that nothing was stored comes with an outcome
// that says otherwise.
func TestQuorumErrorIs(t *testing.T) {
	is := func(t *testing.T, err, kind error, left kvstore.Outcome) {
		t.Helper()
		var q *kvstore.QuorumError
		require.ErrorAs(t, err, &q)
		require.ErrorIs(t, err, kind)
		require.Equal(t, left, kvstore.OutcomeOf(err), "%v", err)
	}
	refusals := []error{kvstore.ErrOverloaded, kvstore.ErrNotReady, kvstore.ErrClockSkew, kvstore.ErrNoSpace, kvstore.ErrReadOnly, kvstore.ErrInvalid}
	for _, refusal := range refusals {
		t.Run(refusal.Error(), func(t *testing.T) {
			is(t, kvstore.Fail("put", kvstore.NotApplied, kvstore.ErrPartial, refusal, refusal), refusal, kvstore.NotApplied)
			is(t, kvstore.Fail("get", kvstore.NotApplied, kvstore.ErrPartial, refusal, nil), refusal, kvstore.NotApplied)
			for _, err := range []error{
				kvstore.Fail("put", kvstore.Unknown, kvstore.ErrPartial, refusal, nil), // one owner has it
				kvstore.Fail("put", kvstore.Unknown, refusal),                          // an earlier attempt may have left it
			} {
				is(t, err, kvstore.ErrPartial, kvstore.Unknown)
				require.NotErrorIs(t, err, refusal)
				require.ErrorContains(t, err, refusal.Error())
			}
			err := kvstore.Fail("put", kvstore.NotApplied, refusal)
			require.ErrorIs(t, err, refusal)
			require.Equal(t, kvstore.NotApplied, kvstore.OutcomeOf(err))
		})
	}
	is(t, kvstore.Fail("put", kvstore.NotApplied, kvstore.ErrPartial, refusals[0], refusals[3]), kvstore.ErrUnavailable, kvstore.NotApplied)
	is(t, kvstore.Fail("get", kvstore.NotApplied, kvstore.ErrPartial, refusals[0], refusals[3]), kvstore.ErrPartial, kvstore.NotApplied)
	is(t, kvstore.Fail("get", kvstore.NotApplied, kvstore.ErrDataLoss), kvstore.ErrDataLoss, kvstore.NotApplied)
	is(t, kvstore.Fail("put", kvstore.NotApplied, kvstore.ErrUnavailable), kvstore.ErrUnavailable, kvstore.NotApplied)
	for _, left := range []kvstore.Outcome{kvstore.NotApplied, kvstore.Unknown} {
		is(t, kvstore.Fail("put", left, kvstore.ErrTimeout), kvstore.ErrTimeout, left)
		is(t, kvstore.Fail("put", left, kvstore.ErrTimeout), context.DeadlineExceeded, left)
		is(t, kvstore.Fail("put", left, context.Canceled), context.Canceled, left)
	}
}

// TestContextEnds: what becomes of calls whose context ends before they begin, and
// while they wait for owners that do not answer.
func TestContextEnds(t *testing.T) {
	const patience = 100 * time.Millisecond
	for name, tt := range map[string]struct {
		over bool // before the call
		make func() (context.Context, context.CancelFunc)
		is   []error
		left kvstore.Outcome // of a write
	}{
		"deadline": {
			make: func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, patience) },
			is:   []error{kvstore.ErrTimeout, context.DeadlineExceeded}, left: kvstore.Unknown,
		},
		"cancel": {
			make: func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(patience, cancel)
				return ctx, cancel
			},
			is: []error{context.Canceled}, left: kvstore.Unknown,
		},
		"deadline before": {
			over: true,
			make: func() (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 0) },
			is:   []error{kvstore.ErrTimeout, context.DeadlineExceeded}, left: kvstore.NotApplied,
		},
		"cancel before": {
			over: true,
			make: func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx, cancel
			},
			is: []error{context.Canceled}, left: kvstore.NotApplied,
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 1, nil, func(c *kvtest.Cluster) {
				waitMembers(c, 3)
				c.Settle()
				put(c, 0, "k", 0)
				if !tt.over {
					c.Partition([]int{0})
				}
				expect := func(left kvstore.Outcome, call func(context.Context) error) {
					c.T.Helper()
					ctx, cancel := tt.make()
					defer cancel()
					start := c.Now()
					err := call(ctx)
					for _, is := range tt.is {
						require.ErrorIs(c.T, err, is)
					}
					var q *kvstore.QuorumError
					require.ErrorAs(c.T, err, &q)
					require.Equal(c.T, left, kvstore.OutcomeOf(err))
					require.Less(c.T, c.Now()-start, patience+50*time.Millisecond)
				}
				expect(tt.left, func(ctx context.Context) error {
					_, err := c.Node(0).Put(ctx, "k", check.Value("k", 1, 80))
					return err
				})
				expect(tt.left, func(ctx context.Context) error { return c.Node(0).Delete(ctx, "other") })
				expect(kvstore.NotApplied, func(ctx context.Context) error {
					_, err := c.Node(0).Get(ctx, "k")
					return err
				})
				c.Heal()
				c.Check()
			})
		})
	}
}

// TestOutcomeOfFailedCalls: a peer that says why it did nothing did nothing; one whose
// answer was too large to be sent may have done it all.
func TestOutcomeOfFailedCalls(t *testing.T) {
	require.False(t, kvstore.OutcomeUnknown(&transport.RemoteError{Code: uint8(replica.NotReady)}))
	require.True(t, kvstore.OutcomeUnknown(&transport.RemoteError{Code: transport.CodeTooLarge}))
	require.True(t, kvstore.OutcomeUnknown(transport.ErrClosed))
	require.True(t, kvstore.OutcomeUnknown(transport.ErrDeadline))
}

// TestOutcomeOfForeignErrors: what this package did not say is not taken for a
// promise that nothing happened.
func TestOutcomeOfForeignErrors(t *testing.T) {
	for _, err := range []error{context.DeadlineExceeded, context.Canceled, errors.New("a proxy's")} {
		require.Equal(t, kvstore.Unknown, kvstore.OutcomeOf(err), "%v", err)
	}
	require.True(t, kvstore.Retryable(context.DeadlineExceeded))
	require.NotContains(t, fmt.Sprint(kvstore.Options{ClusterKey: []byte("a secret of 16 bytes")}), "115", "a byte of the key")
}
