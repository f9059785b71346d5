package topology

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore/ring"
)

func testEpoch(t testing.TB) *Epoch {
	first, err := Bootstrap([16]byte{1, 2, 3}, simName, Member{Node: ring.Node{ID: "a", Zone: "z1", Weight: 1}, Addr: "a:1", UID: 7}, 8, 3, true)
	require.NoError(t, err)
	second, err := first.next([]Member{{Node: ring.Node{ID: "b", DataCenter: "east", Weight: 0.5}, Addr: "b:1", UID: 8}, {Node: ring.Node{ID: "p"}, UID: 9}})
	require.NoError(t, err)
	return second
}

func TestEpochEncoding(t *testing.T) {
	e := testEpoch(t)
	b, err := e.AppendBinary([]byte("before"))
	require.NoError(t, err)
	b = b[len("before"):]
	got, err := DecodeEpoch(b)
	require.NoError(t, err)
	require.Equal(t, e, got)
	require.Equal(t, e.Hash(), got.Hash())
	m, ok := got.Member("b")
	require.True(t, ok)
	require.Equal(t, uint64(8), m.UID)
	_, ok = got.Member("c")
	require.False(t, ok)
	for i := range b {
		_, err := DecodeEpoch(b[:i])
		require.ErrorIs(t, err, ErrCorrupt, "cut at %d", i)
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			_, err := DecodeEpoch(bad)
			require.ErrorIs(t, err, ErrCorrupt, "bit %d of byte %d", bit, i)
		}
	}
}

func TestBootstrapChecks(t *testing.T) {
	self := Member{Node: ring.Node{ID: "a", Weight: 1}, Addr: "a:1", UID: 1}
	for name, f := range map[string]func() (*Epoch, error){
		"no cluster id": func() (*Epoch, error) { return Bootstrap([16]byte{}, "", self, 8, 3, false) },
		"long name":     func() (*Epoch, error) { return Bootstrap([16]byte{1}, string(make([]byte, 256)), self, 8, 3, false) },
		"no UID":        func() (*Epoch, error) { return Bootstrap([16]byte{1}, "", Member{Node: self.Node}, 8, 3, false) },
		"q":             func() (*Epoch, error) { return Bootstrap([16]byte{1}, "", self, 7, 3, false) },
		"proxy": func() (*Epoch, error) {
			return Bootstrap([16]byte{1}, "", Member{Node: ring.Node{ID: "a"}, UID: 1}, 8, 3, false)
		},
	} {
		_, err := f()
		require.Error(t, err, name)
	}
}

// messages has one message of each kind.
func messages(t testing.TB) [][]byte {
	e, err := testEpoch(t).AppendBinary(nil)
	require.NoError(t, err)
	from := Member{Node: ring.Node{ID: "a", Zone: "z1", Weight: 1}, Addr: "a:1", UID: 7}
	var all [][]byte
	for kind := byte(kindJoin); kind <= kindAccepted+1; kind++ {
		m := &message{kind: kind, cluster: [16]byte{1, 2, 3}, epoch: 2, from: from, slot: 3, ballot: ballot{4, 7},
			name: simName, code: 1, text: "no", epochs: [][]byte{e, e}, flag: true, other: ballot{2, 8}, value: e}
		all = append(all, m.encode())
	}
	return all
}

func TestMessageEncoding(t *testing.T) {
	for _, b := range messages(t) {
		m, err := decodeMessage(b)
		require.NoError(t, err)
		require.Equal(t, b, m.encode())
		for i := range min(len(b), 200) {
			if m, err := decodeMessage(b[:i]); err == nil { // a chain may end after any epoch
				require.Equal(t, byte(kindChain), m.kind)
			}
		}
	}
}

// An agent takes any bytes, at any time, without a panic, and without losing its chain.
func FuzzStep(f *testing.F) {
	for _, b := range messages(f) {
		f.Add(b, []byte{})
		f.Add(b, b)
	}
	first, err := Bootstrap([16]byte{1, 2, 3}, simName, Member{Node: ring.Node{ID: "a", Zone: "z1", Weight: 1}, Addr: "a:1", UID: 7}, 8, 3, true)
	require.NoError(f, err)
	chain := []*Epoch{first, testEpoch(f)}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		member, err := NewAgent(Config{Self: chain[1].Members[1], Name: simName, Chain: chain})
		require.NoError(t, err)
		outside, err := NewAgent(Config{Self: Member{Node: ring.Node{ID: "x", Weight: 1}, UID: 1}, Name: simName})
		require.NoError(t, err)
		now := time.Unix(1, 0)
		outside.Join(now)
		for _, a := range []*Agent{member, outside} {
			for _, b := range [][]byte{one, two, one} {
				a.Step(now, b)
				now = now.Add(time.Second)
				a.Tick(now)
			}
		}
		require.Equal(t, chain[1], member.Chain(1)[0])
	})
}

func FuzzDecodeEpoch(f *testing.F) {
	b, err := testEpoch(f).AppendBinary(nil)
	require.NoError(f, err)
	f.Add(b[:len(b)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := seal(bytes.Clone(body), 0)
		e, err := DecodeEpoch(b)
		if err != nil {
			return
		}
		again, _ := e.AppendBinary(nil)
		require.Equal(t, b, again)
	})
}

// Messages taken for another kind do not split a cluster that grows, and none panics.
// They may well make a joiner believe it is refused: transports guard against damage.
func TestDamagedMessages(t *testing.T) {
	for seed := range seeds(t, 30, 3000) {
		s := storm(t, seed)
		damage := rand.New(rand.NewPCG(seed, 1))
		for range 300 {
			if s.run(20*time.Millisecond, s.settled) {
				break
			}
			for i := range s.queue {
				if b := s.queue[i].body; len(b) > 8 && damage.IntN(20) == 0 {
					s.queue[i].body = bytes.Clone(b)
					s.queue[i].body[damage.IntN(2)] ^= byte(1 + damage.IntN(255)) // version or kind
				}
			}
		}
		s.settle()
		s.check()
	}
}
