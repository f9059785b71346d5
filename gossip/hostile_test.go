package gossip

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// forge builds a message that claims to come from the given member.
func forge(k kind, from *member, about ...*member) []byte {
	b := appendHeader(nil, &header{kind: k, nonce: 7, members: 9, from: entry{
		id: []byte(from.id), addr: []byte(from.addr), version: from.version, bodyAt: from.bodyAt,
	}})
	for _, m := range about {
		b = appendEntry(b, m, m.addr != "")
	}
	return b
}

// A liar who may speak floods everybody with forged counters, other ids, deaths,
// false addresses, replays and torn messages. No node is removed, 10 s after the
// liar stops all live nodes are alive everywhere, and soon known as they are.
func TestLiar(t *testing.T) {
	seeds := uint64(3)
	if torture() {
		seeds = 200
	}
	var alive, agreed time.Duration
	for seed := range seeds {
		for _, skew := range []time.Duration{0, time.Hour, -time.Hour} {
			a, b := liar(t, seed, skew)
			alive, agreed = max(alive, a), max(agreed, b)
		}
	}
	t.Logf("%d histories: after the liar stops all are alive within %v, and known as they are within %v", 3*seeds, alive, agreed)
}

// liar lets one lie for 30 s and returns how long the cluster then needs until all
// are alive everywhere, and until all that is believed of them is true.
func liar(t *testing.T, seed uint64, skew time.Duration) (alive, agreed time.Duration) {
	random := rand.New(rand.NewPCG(seed, 1))
	values := func(true uint64) uint64 {
		v := []uint64{0, 1, true, true + 1, true + 1000, true + maxAhead, true + maxAhead + 1, true + maxLeap,
			math.MaxInt32, 1 << 40, 1 << 62, 1<<62 + 1, math.MaxUint64}
		return v[random.IntN(len(v))]
	}
	w := newWorld(seed)
	w.cluster(20)
	w.nodes[7].skew = skew
	var heard [][]byte
	w.trace = func(_ *node, body []byte) {
		if len(heard) < 1000 {
			heard = append(heard, bytes.Clone(body))
		}
	}
	w.run(20 * time.Second)
	w.trace = nil
	for range 600 {
		w.run(50 * time.Millisecond)
		for range 4 {
			from, about, to := w.nodes[random.IntN(20)], w.nodes[random.IntN(20)], w.nodes[random.IntN(20)]
			lie := func(n *node) *member {
				m := *n.self
				m.incarnation, m.heartbeat, m.state = values(m.incarnation), values(m.heartbeat), State(random.IntN(4))
				m.bodyAt = min(values(m.bodyAt), m.heartbeat)
				if random.IntN(2) == 0 {
					m.addr = "10.0.0.0:7000" // of node 0
				}
				return &m
			}
			var msg []byte
			switch random.IntN(4) {
			case 0:
				msg = heard[random.IntN(len(heard))]
			case 1:
				msg = heard[random.IntN(len(heard))]
				msg = msg[:random.IntN(len(msg))]
			case 2:
				msg = forge(kind(random.IntN(7)), from.self, lie(about), lie(about), lie(w.nodes[random.IntN(20)]))
			case 3:
				msg = forge(kind(random.IntN(7)), lie(from), lie(about))
			}
			w.push(event{at: w.now, to: to, body: msg})
		}
	}
	start := w.now
	everyone := func(ok func(n, o *node, m *member) bool) func() bool {
		return func() bool {
			for _, n := range w.nodes {
				for _, o := range w.nodes {
					if m := n.find([]byte(o.self.id)); m == nil || !ok(n, o, m) {
						return false
					}
				}
			}
			return true
		}
	}
	alive = w.runUntil(t, 10*time.Second, 100*time.Millisecond, everyone(func(_, _ *node, m *member) bool { return m.state == Alive }))
	w.runUntil(t, 30*time.Second, 100*time.Millisecond, everyone(func(_, o *node, m *member) bool {
		return m.state == Alive && m.addr == o.self.addr && m.incarnation == o.self.incarnation
	}))
	return alive, w.now.Sub(start)
}

// A forged greatest counter that reaches one node only does not pin its victim.
func TestForgedCounters(t *testing.T) {
	for _, v := range []version{
		{math.MaxUint64, math.MaxUint64, Dead},
		{1 << 62, 1 << 40, Dead},
		{uint64(epoch.UnixMilli()) + maxAhead, 1 << 40, Dead},
		{uint64(epoch.UnixMilli()), math.MaxInt32, Dead},
		{uint64(epoch.UnixMilli()), 100_000, Alive},
	} {
		w := newWorld(47)
		w.cluster(10)
		w.run(5 * time.Second)
		victim, liar := *w.nodes[3].self, w.nodes[4].self
		victim.version, victim.bodyAt, victim.addr = v, 1, "10.6.6.6:6"
		w.push(event{at: w.now, to: w.nodes[0], body: forge(kindDelta, liar, &victim)})
		w.run(10 * time.Second)
		for _, n := range w.nodes {
			m := n.find([]byte(victim.id))
			require.Equal(t, Alive, m.state, "%v", v)
			require.Equal(t, w.nodes[3].self.addr, m.addr)
		}
	}
}

// What a message can make a node allocate is a small multiple of its size, and the
// table is bounded.
func TestAllocationBounded(t *testing.T) {
	g := New(Config{ID: "a", Addr: "a:1", Incarnation: 5})
	liar := &member{id: "liar", version: version{5, 5, Alive}, body: body{addr: "l:1"}, bodyAt: 5}
	number := 0
	ghosts := func() []byte {
		msg := forge(kindDelta, liar)
		for len(msg) < MaxMessageBytes-100 {
			number++
			m := *liar
			m.id = strconv.Itoa(number)
			msg = appendEntry(msg, &m, true)
		}
		return msg
	}
	allocated := func(msg []byte) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		g.Step(epoch, msg)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for range 5 {
		msg := ghosts()
		n := allocated(msg)
		t.Logf("%d bytes of unknown members: %d bytes allocated, %d members", len(msg), n, len(g.sorted))
		require.LessOrEqual(t, n, uint64(20*len(msg)))
	}
	require.Len(t, g.sorted, MaxMembers)
	require.LessOrEqual(t, allocated(ghosts()), uint64(4*MaxMessageBytes))
	require.Less(t, allocated(bytes.Repeat([]byte{255}, MaxMessageBytes)), uint64(4096))
	require.Less(t, allocated(make([]byte, MaxMessageBytes+1)), uint64(4096))

	// The dead make room for the new.
	g.adopt(g.find([]byte("17")), version{6, 6, Dead})
	m := *liar
	m.id = "new"
	g.Step(epoch, forge(kindDelta, liar, &m))
	require.NotNil(t, g.find([]byte("new")))
	require.Nil(t, g.find([]byte("17")))
	require.Len(t, g.sorted, MaxMembers)
}

// Fields added by later versions are skipped.
func TestUnknownFieldsSkipped(t *testing.T) {
	g := New(Config{ID: "a", Addr: "a:1"})
	b := &member{id: "b", version: version{3, 4, Alive}, body: body{"b:1", []byte("meta")}, bodyAt: 2}
	msg := forge(kindPing, b)
	msg = append(msg[:len(msg)-1], 3, 'n', 'e', 'w') // an extension in the header
	start := len(msg)
	msg = append(appendEntry(msg, b, true), "more"...)
	msg[start+1] += 4
	out := g.Step(epoch, msg)
	require.Len(t, out, 1)
	m := g.Members()[1]
	require.Equal(t, Member{ID: "b", Addr: "b:1", State: Alive, Incarnation: 3, Heartbeat: 4, Meta: []byte("meta"), Seen: epoch}, m)
}

func TestLimits(t *testing.T) {
	require.Panics(t, func() { New(Config{Addr: "a"}) })
	require.Panics(t, func() { New(Config{ID: "a"}) })
	require.Panics(t, func() { New(Config{ID: string(make([]byte, MaxIDBytes+1)), Addr: "a"}) })
	g := New(Config{ID: string(make([]byte, MaxIDBytes)), Addr: string(make([]byte, MaxAddrBytes)), Meta: make([]byte, MaxMetaBytes)})
	require.Error(t, g.SetMeta(make([]byte, MaxMetaBytes+1)))
	require.NoError(t, g.SetMeta(make([]byte, MaxMetaBytes)))

	// A table of the widest members still goes around in bounded messages.
	w := newWorld(53)
	w.cluster(200, func(c *Config) {
		c.ID = fmt.Sprintf("%0128s", c.ID)
		c.Meta = make([]byte, MaxMetaBytes)
	})
	longest := 0
	w.trace = func(_ *node, body []byte) { longest = max(longest, len(body)) }
	c := w.config(200)
	c.Seeds = []string{w.nodes[0].self.addr}
	joiner := w.start(c) // its last members come by digest
	took := w.runUntil(t, time.Minute, 100*time.Millisecond, func() bool { return joiner.count[Alive] == 201 })
	t.Logf("a joiner knows 201 members of 0.7 KiB after %v; longest message %d bytes", took, longest)
	require.LessOrEqual(t, longest, replyBytes+MaxIDBytes+MaxAddrBytes+MaxMetaBytes+digestBytes)
}

// Merging full entries gives the same table in any order, any number of times.
func TestMergeIsAJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var entries [][]byte
		for range rapid.IntRange(1, 12).Draw(t, "entries") {
			v := version{
				rapid.Uint64Range(1, 3).Draw(t, "incarnation"), rapid.Uint64Range(1, 4).Draw(t, "heartbeat"),
				State(rapid.IntRange(1, 3).Draw(t, "state")),
			}
			at := rapid.Uint64Range(1, v.heartbeat).Draw(t, "bodyAt")
			m := &member{id: "m", version: v, bodyAt: at, body: body{addr: fmt.Sprint(v.incarnation, ".", at)}}
			entries = append(entries, forge(kindDelta, &member{id: "x", version: version{1, 1, Alive}, body: body{addr: "x"}, bodyAt: 1}, m))
		}
		table := func(order [][]byte) member {
			g := New(Config{ID: "a", Addr: "a:1"})
			for _, e := range order {
				g.Step(epoch, e)
			}
			m := *g.find([]byte("m"))
			return member{id: m.id, version: m.version, bodyAt: m.bodyAt, body: m.body}
		}
		want := table(entries)
		shuffled := rapid.Permutation(append(entries, entries...)).Draw(t, "order")
		require.Equal(t, want, table(shuffled))
	})
}

// FuzzStep feeds any bytes to a node in the middle of its work.
func FuzzStep(f *testing.F) {
	f.Fuzz(func(t *testing.T, msg []byte) {
		w := newWorld(1)
		w.cluster(4)
		w.run(3 * time.Second)
		g := w.nodes[0].Gossip
		before := g.self.version
		for _, m := range g.Step(w.now, msg) {
			require.LessOrEqual(t, len(m.Body), MaxMessageBytes)
			_, _, err := decode(m.Body)
			require.NoError(t, err, "what a node says, it must understand")
		}
		require.Equal(t, Alive, g.self.state)
		require.GreaterOrEqual(t, g.self.version.compare(before), 0)
		sum := 0
		for i, m := range g.sorted {
			require.True(t, i == 0 || g.sorted[i-1].id < m.id)
			require.NotZero(t, m.state)
			sum++
		}
		require.Equal(t, sum, g.count[Alive]+g.count[Suspect]+g.count[Dead])
		require.NotNil(t, g.find([]byte(nodeID(1))))
		w.send(w.nodes[0], g.Tick(w.now))
		w.run(2 * time.Second)
	})
}

// TestWriteCorpus renews testdata/fuzz from the messages of a small cluster; it
// runs on demand only.
func TestWriteCorpus(t *testing.T) {
	if os.Getenv("GOSSIP_WRITE_CORPUS") == "" {
		t.Skip("set GOSSIP_WRITE_CORPUS=1 to renew testdata/fuzz")
	}
	dir := filepath.Join("testdata", "fuzz", "FuzzStep")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	write := func(name string, msg []byte) {
		text := "go test fuzz v1\n[]byte(" + strconv.Quote(string(msg)) + ")\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	w := newWorld(1)
	w.cluster(4, func(c *Config) { c.Meta = []byte("meta") })
	w.nodes[2].down = true
	w.cut = func(from, to *node) bool { return from.index == 0 && to.index == 1 }
	kinds := map[kind]int{}
	w.trace = func(_ *node, body []byte) {
		h, _, err := decode(body)
		require.NoError(t, err)
		if kinds[h.kind]++; kinds[h.kind] <= 3 {
			write(fmt.Sprintf("kind%d-%d", h.kind, kinds[h.kind]), body)
		}
	}
	w.run(20 * time.Second)
	w.start(w.config(2)).config.Seeds = []string{w.nodes[0].self.addr}
	w.run(5 * time.Second)
	self, other := *w.nodes[0].self, *w.nodes[1].self
	for i, v := range []version{{math.MaxUint64, math.MaxUint64, Dead}, {1 << 62, 1 << 40, Suspect}, {0, 0, Alive}} {
		self.version, other.version = v, v
		self.bodyAt, other.bodyAt = v.heartbeat, v.heartbeat
		write(fmt.Sprintf("forged-%d", i), forge(kindPing, w.nodes[3].self, &self, &other))
		write(fmt.Sprintf("forged-ack-%d", i), forge(kindAck, w.nodes[3].self, &self, &other))
	}
	write("truncated", forge(kindPing, w.nodes[3].self, &self)[:30])
	write("empty", nil)
}
