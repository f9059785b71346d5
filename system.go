package kvstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"example.com/kvstore/lsm"
	"example.com/kvstore/topology"
	"example.com/kvstore/vclock"
)

// The system key space: a node's own state lives in the same engine as its data, under
// tokens that no user key has. Its writes are synced under every policy.
const (
	lastToken   = firstSystem - 1 // that a user key may have
	firstSystem = lsm.FirstSystemToken
	systemToken = lsm.SystemToken // of all but hints and marks
)

// spreadToken is the token of a key of which there are many like it. With one token for
// all of them neither filters nor the record cache could tell them apart.
func spreadToken(key []byte) uint64 {
	return min(firstSystem+lsm.Token(key)>>32, systemToken-1)
}

// Keys of the system key space. Described in lsm/FORMAT.md.
const (
	sysNode      = "node/id"         // text
	sysUID       = "node/uid"        // 8 bytes: identity of the directory
	sysBoots     = "node/boots"      // 8 bytes: starts so far
	sysCausal    = "node/causal"     // 8 bytes: the present actor of causal writes
	sysSalvaged  = "node/salvaged"   // 1 byte: some of these keys may be missing
	sysHeir      = "node/heir"       // 1 byte: this directory took another one's place, and is not whole yet
	sysLazy      = "node/lazy"       // 1 byte, from open to close: writes are acknowledged before they are synced
	sysCluster   = "cluster/name"    // text
	sysCeiling   = "clock/ceiling"   // 8 bytes: no stamp above it was issued
	sysTopology  = "topology/state"  // the agent's, opaque
	sysEpoch     = "epoch/"          // + number, 20 decimal digits: topology.Epoch
	sysHintFloor = "node/hint-floor" // 8 bytes: see hints.floor
	sysExchange  = "exchange/"       // + partition, 5 decimal digits, 8 bytes: the epoch in which the need was noted
	sysHorizon   = "horizon/"        // + partition / 64, 5 decimal digits: (promised 8, recorded 8)*
	// replica.HintPrefix and replica.MarkPrefix: what is kept for other nodes.
)

// A system is the node's own durable state. Only one goroutine writes a key.
type system struct {
	tree *lsm.Tree
	// lost is the stamp of the last key that was set without knowing what it was, as
	// damage hid that: above what any key had.
	lost atomic.Uint64
}

func newSystem(tree *lsm.Tree, now time.Time) *system {
	s := &system{tree: tree}
	s.lost.Store(vclock.NewStamp(now))
	return s
}

// next is the dot of the value that a key gets: one above that of the value it
// replaces.
func (s *system) next(key string) (vclock.Dot, error) {
	old, _, err := s.tree.ReadToken(systemToken, []byte(key))
	if errors.Is(err, lsm.ErrCorrupt) {
		return vclock.Dot{Stamp: s.lost.Add(1)}, nil
	}
	return vclock.Dot{Stamp: old.Max.Stamp + 1}, err
}

// A setting is one key of the system key space and its new value.
type setting struct {
	key   string
	value []byte
}

// readable reports, as an error, whether some of the keys are hidden by damage.
func (s *system) readable() error {
	for _, err := range s.tree.Scan(firstSystem, systemToken) {
		if err != nil {
			return err
		}
	}
	return nil
}

// get returns a key's value, nil when it was never set or was removed.
func (s *system) get(key string) ([]byte, error) {
	rec, ok, err := s.tree.ReadToken(systemToken, []byte(key))
	if err != nil || !ok || rec.Kind == lsm.Tombstone {
		return nil, err
	}
	return rec.Value, nil
}

func (s *system) uint64(key string) (uint64, error) {
	b, err := s.get(key)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: system key %q has %d bytes, expected 8", ErrCorrupt, key, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

func number(key string, n uint64) setting {
	return setting{key, binary.LittleEndian.AppendUint64(nil, n)}
}

// set stores all settings, synced, in one group of the log. A later set of a
// key wins.
func (s *system) set(settings ...setting) error {
	batch := make([]lsm.Record, len(settings))
	for i, x := range settings {
		dot, err := s.next(x.key)
		if err != nil {
			return err
		}
		batch[i] = lsm.Record{Token: systemToken, Key: []byte(x.key), Min: dot, Max: dot, Kind: lsm.Value, Value: x.value}
	}
	return s.tree.ApplySync(batch)
}

// remove deletes keys, synced, in one group of the log.
func (s *system) remove(keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	batch := make([]lsm.Record, len(keys))
	for i, key := range keys {
		dot, err := s.next(key)
		if err != nil {
			return err
		}
		batch[i] = lsm.Record{Token: systemToken, Key: []byte(key), Min: dot, Max: dot, Kind: lsm.Tombstone}
	}
	return s.tree.ApplySync(batch)
}

func epochKey(n uint64) string { return fmt.Sprintf("%s%020d", sysEpoch, n) }

// chain reads the epochs known to this node, oldest first.
func (s *system) chain() ([]*topology.Epoch, error) {
	var chain []*topology.Epoch
	for n := uint64(1); ; n++ {
		b, err := s.get(epochKey(n))
		if err != nil || b == nil {
			return chain, err
		}
		e, err := topology.DecodeEpoch(b)
		if err != nil {
			return nil, fmt.Errorf("%w: epoch %d: %w", ErrCorrupt, n, err)
		}
		chain = append(chain, e)
	}
}
