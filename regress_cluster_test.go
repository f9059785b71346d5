package kvstore_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/ring"
	"example.com/kvstore/topology"
	"example.com/kvstore/transport"
)

// TestAddressTaken: a member that took over the address of another one does not
// acknowledge in its place: what is acknowledged at All is at all owners. When
// the other one is back elsewhere it counts again.
func TestAddressTaken(t *testing.T) {
	listen := map[int]string{}
	o := &kvtest.Options{Configure: func(i int, o *kvstore.Options) {
		if addr := listen[i]; addr != "" {
			o.Listen = addr
		}
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		_, err := c.Node(0).Put(ctx, "k", check.Value("k", 1, 80), kvstore.All)
		require.NoError(c.T, err)
		c.Stop(1)
		c.Stop(2)
		listen[1], listen[2] = "elsewhere:1", c.Node(1).Addr()
		c.Restart(2)
		for id := 2; c.Now() < 30*time.Second; id++ {
			_, err := c.Node(0).Put(ctx, "k", check.Value("k", id, 80), kvstore.All)
			require.Error(c.T, err, "node 1 does not run")
			_, err = c.Node(0).Get(ctx, "k", kvstore.All)
			require.Error(c.T, err, "node 1 does not run")
			time.Sleep(50 * time.Millisecond)
		}
		c.Settle()
		put(c, 0, "k", 10_000)
		get(c, 2, "k", 10_000)
		c.Restart(1)
		c.Settle()
		_, err = c.Node(0).Put(ctx, "k", check.Value("k", 10_001, 80), kvstore.All)
		require.NoError(c.T, err)
		c.Check()
	})
}

// TestNamesakeRefused: a node that has a member's name and not its disk is
// refused, and no call of the cluster fails because of it, while it tries and
// after.
func TestNamesakeRefused(t *testing.T) {
	o := &kvtest.Options{Nodes: 4, Stopped: true, Configure: func(i int, o *kvstore.Options) {
		if i == 3 {
			o.NodeID = "n1"
		}
	}}
	simulate(t, 1, o, func(c *kvtest.Cluster) {
		for i := range 3 {
			c.Restart(i)
		}
		c.Settle()
		waitRunning(c, 3)
		before := believed(c, 3)
		c.Restart(3)
		for id := range 400 {
			_, err := c.Node(id%3).Put(ctx, "k", check.Value("k", id, 80), kvstore.All)
			require.NoError(c.T, err, "at %v", c.Now())
			get(c, (id+1)%3, "k", id, kvstore.All)
			time.Sleep(50 * time.Millisecond)
		}
		err := readyError(c, 3)
		require.ErrorIs(c.T, err, kvstore.ErrJoinRefused)
		require.ErrorIs(c.T, err, topology.ErrNameTaken)
		require.Equal(c.T, before, believed(c, 3), "nobody took the one for the other")
	})
}

// believed is what the first n nodes know of each other, but for how old it is.
func believed(c *kvtest.Cluster, n int) (members [][]kvstore.MemberStatus) {
	c.T.Helper()
	for i := range n {
		s, err := c.Node(i).DB().Status(ctx)
		require.NoError(c.T, err)
		for j := range s.Members {
			s.Members[j].HeartbeatAge = 0
		}
		members = append(members, s.Members)
	}
	return members
}

// TestFencedMembers: members that promised for a join, and do not hear that it was
// decided, read nothing behind the writes of the next epoch.
func TestFencedMembers(t *testing.T) {
	few(t, 3, func(t *testing.T, seed uint64) {
		simulate(t, seed, &kvtest.Options{Nodes: 4, Stopped: true}, func(c *kvtest.Cluster) {
			for i := range 3 {
				c.Restart(i)
			}
			c.Settle()
			waitRunning(c, 3)
			before := c.Node(0).DB().Ring().Epoch()
			c.Restart(3)
			for c.Node(0).DB().Ring().Epoch() == before { // a message takes longer than this sleep
				time.Sleep(50 * time.Microsecond)
			}
			c.Partition([]int{0, 3}, []int{1, 2})
			key := keyOf(c.Node(0).DB(), "n0", "n3")
			short := func() context.Context {
				ctx, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
				c.T.Cleanup(cancel)
				return ctx
			}
			var err error
			for id := 1; id < 30; id++ { // node 3 must hear that it is a member
				if _, err = c.Node(0).Put(short(), key, check.Value(key, id, 80)); err == nil {
					break
				}
			}
			require.NoError(c.T, err)
			for range 5 {
				for i := 1; i <= 2; i++ {
					_, err := c.Node(i).Get(short(), key)
					require.Error(c.T, err, "node %d read behind the write", i)
					require.NotErrorIs(c.T, err, kvstore.ErrNotFound, "node %d read behind the write", i)
				}
				require.Equal(c.T, before, c.Node(1).DB().Ring().Epoch(), "a fenced member learned the epoch: nothing was tested")
			}
			c.Heal()
			c.Check()
		})
	})
}

// keyOf is a key with these nodes among its owners.
func keyOf(db *kvstore.DB, nodes ...string) string {
	r := db.Ring()
	for i := 0; ; i++ {
		key := fmt.Sprint("key", i)
		owners := map[string]bool{}
		for _, o := range r.Owners(r.Partition(ring.Token(key))) {
			owners[r.Nodes()[o].ID] = true
		}
		if !slices.ContainsFunc(nodes, func(id string) bool { return !owners[id] }) {
			return key
		}
	}
}

// TestFencedReads: a fenced member answers reads, other nodes' and its own, when
// the fence is down, and not before.
func TestFencedReads(t *testing.T) {
	simulate(t, 1, nil, func(c *kvtest.Cluster) {
		waitMembers(c, 3)
		c.Settle()
		lower := kvstore.RaiseFence(c.Node(1).DB())
		defer lower()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := c.Node(0).Get(short, "k", kvstore.All)
		require.ErrorIs(c.T, err, kvstore.ErrTimeout)
		_, err = c.Node(0).Get(ctx, "k")
		require.ErrorIs(c.T, err, kvstore.ErrNotFound, "two owners are a quorum")
		own, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = c.Node(1).Get(own, "k", kvstore.One)
		require.ErrorIs(c.T, err, kvstore.ErrTimeout)

		time.AfterFunc(time.Second, lower)
		for i := range 2 {
			_, err = c.Node(i).Get(ctx, "k", kvstore.All)
			require.ErrorIs(c.T, err, kvstore.ErrNotFound)
		}
	})
}

// TestMemberWithoutListener: the directory of a member of a larger cluster does
// not open without an address that the others reach it at.
func TestMemberWithoutListener(t *testing.T) {
	net := transport.NewNetwork(nil)
	disk := vfs.NewMem(1)
	a, err := kvstore.Open("/node", &kvstore.Options{FS: disk, Listen: "a:1", Transport: net.Transport("a")})
	require.NoError(t, err)
	defer a.Close()
	ready(t, a)
	b := open(t, "/node", &kvstore.Options{FS: vfs.NewMem(2), Listen: "b:1", Transport: net.Transport("b"), Seeds: []string{"a:1"}})
	ready(t, b)
	require.NoError(t, a.Close())

	_, err = kvstore.Open("/node", &kvstore.Options{FS: disk})
	require.ErrorIs(t, err, kvstore.ErrInvalid)
	require.ErrorContains(t, err, "Options.Listen")
	a = open(t, "/node", &kvstore.Options{FS: disk, Listen: "a:2", Transport: net.Transport("a")})
	ready(t, a)
}

// TestEmptyDirectory: over real connections, a node that starts with an empty directory
// is a member again and has everything, soon after its old one was closed.
func TestEmptyDirectory(t *testing.T) {
	quick := func(o *kvstore.Options) { o.SuspectAfter, o.Partitions = 200*time.Millisecond, 64 }
	dbs := openThree(t, quick)
	for k := range 100 {
		require.Eventually(t, func() bool {
			_, err := dbs[k%3].Put(ctx, fmt.Sprint("key", k), []byte("v"))
			return err == nil
		}, time.Minute, time.Millisecond)
	}
	s, err := dbs[0].Status(ctx)
	require.NoError(t, err)
	require.NoError(t, dbs[2].Close())
	o := &kvstore.Options{NodeID: "n2", Listen: s.Members[2].Addr, Seeds: []string{s.Members[0].Addr, s.Members[1].Addr}, GossipInterval: 50 * time.Millisecond}
	quick(o)
	again := open(t, t.TempDir(), o)
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute) // a busy machine finds out late that a node is gone
	defer cancel()
	require.NoError(t, again.Ready(wait))
	require.Eventually(t, func() bool { return again.Metrics().Incomplete == 0 && again.Metrics().Healed > 0 }, time.Minute, 20*time.Millisecond)
	for k := range 100 { // again, since a member that a busy machine holds up for that long is taken for dead
		require.Eventually(t, func() bool {
			_, err := again.Get(ctx, fmt.Sprint("key", k), kvstore.All)
			return err == nil
		}, time.Minute, time.Millisecond)
	}
}
