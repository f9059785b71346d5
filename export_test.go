package kvstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"time"

	"example.com/kvstore/crdt"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/lsm"
	"example.com/kvstore/replica"
	"example.com/kvstore/ring"
	"example.com/kvstore/vclock"
)

// Defences are for the simulations to switch off.
var Defences = &defences

// Bounds of the queues of a node.
const (
	MaxInFlight   = maxInFlight
	MaxWorkers    = maxWorkers
	MaxReaders    = maxReaders
	MaxKeyWaiters = maxKeyWaiters
	MaxForwarded  = maxForwarded
)

// RaiseFence raises a member's fence, as a promise for a join does, and gives
// what lowers it.
func RaiseFence(db *DB) (lower func()) {
	db.fence.raise()
	return db.fence.lower
}

// Barred reports whether a node takes no writes of some partitions, since it took another
// one's place and has not all data.
func Barred(db *DB) bool { return db.damage.barred.Load() != nil }

// HorizonOf is what a node knows of the horizon of a key.
func HorizonOf(db *DB, key string) replica.Horizon {
	v := db.view.Load()
	return db.horizons.of(v).at(v.ring.Partition(TokenOf(key)))
}

// Fail gives the error of a call that cause ended, left that behind, and had
// these errors from its replicas.
func Fail(op string, left Outcome, cause error, replicas ...error) error {
	e := QuorumError{Op: op, Key: "k", Level: Quorum, Required: 2, outcome: left}
	for _, err := range replicas {
		e.Replicas = append(e.Replicas, ReplicaError{Node: "n", Err: err})
	}
	return e.fail(cause)
}

// OutcomeUnknown reports whether a call that ended so may have done something.
func OutcomeUnknown(err error) bool { return outcomeUnknown(err) }

// Observe has a node take in the stamps of a record from elsewhere.
func Observe(db *DB, r replica.Record) error { return db.observe(&r) }

// Advances reports whether a page of a scan may end with a key.
func Advances(q replica.ScanRequest, last string) bool { return advances(&q, []byte(last)) }

// TokenOf is the token of a key.
func TokenOf(key string) uint64 { return ring.Token(key) }

// Holds tells what this node's own copy has of each key.
func Holds(db *DB) (map[string]check.Holding, error) {
	all := map[string]check.Holding{}
	for rec, err := range db.tree.Scan(0, lastToken) {
		if err != nil {
			return nil, err
		}
		all[string(rec.Key)] = check.Holding{Dot: rec.Max, Tombstone: rec.Kind == lsm.Tombstone,
			Bytes: fmt.Sprintf("%v %d %d %q", rec.Max, rec.Kind, rec.Deadline, rec.Value)}
	}
	return all, nil
}

// HoldsOf gives what this node's own copy has of one key: the value, or siblings as
// they are stored.
func HoldsOf(db *DB, key string) ([]byte, error) {
	rec, _, err := db.tree.Read([]byte(key))
	return rec.Value, err
}

// UID is that of a node's directory: rounds go by it.
func UID(db *DB) uint64 { return db.uid }

// HoldsSum is a hash of all that this node's own copy has.
func HoldsSum(db *DB) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for rec, err := range db.tree.Scan(0, lastToken) {
		if err != nil {
			return sum, err
		}
		fmt.Fprintf(h, "%q %v %d %d %d ", rec.Key, rec.Max, rec.Kind, rec.Deadline, len(rec.Value))
		h.Write(rec.Value)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Fill joins n values of size bytes into a node's own copy, as if it had taken part
// in writing them before now. change may alter the stamp of each, or leave it out with 0.
func Fill(db *DB, now time.Time, n, size int, change func(i int, stamp uint64) uint64) error {
	stamp := vclock.NewStamp(now.Add(-time.Minute)) - uint64(n)
	var batch []lsm.Record
	for i := range n {
		stamp := change(i, stamp+uint64(i))
		if stamp > 0 {
			key := fmt.Appendf(nil, "key-%012d", i)
			dot := vclock.Dot{Stamp: stamp, Actor: 1}
			batch = append(batch, lsm.Record{Token: lsm.Token(key), Key: key, Min: dot, Max: dot, Kind: lsm.Value, Value: bytes.Repeat([]byte{byte(i)}, size)})
		}
		if len(batch) == 10_000 || i == n-1 && len(batch) > 0 {
			if err := db.tree.Apply(batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

// Compact has a node's engine purge what it may.
func Compact(db *DB) error { return db.tree.Compact(context.Background()) }

// TakeRound carries a node that is alone through a round for all partitions, repeats
// its last step, and gives what came of each.
func TakeRound(db *DB) (statuses []replica.Status) {
	v := db.view.Load()
	m := replica.RoundStep{Epoch: v.epoch.Number, Round: mix(db.salts.Add(1)), Owners: []uint64{db.uid}, Partitions: bytes.Repeat([]byte{255}, (v.ring.Partitions()+7)/8),
		Horizon: vclock.NewStamp(db.opts.Clock().Add(-db.opts.MaxRequest))}
	for _, m.Step = range []byte{replica.RoundPromise, replica.RoundMerge, replica.RoundRecord, replica.RoundRecord} {
		statuses = append(statuses, db.horizons.step(&m, now().Add(db.opts.MaxRequest)))
	}
	return statuses
}

// Forget deletes what a node that is alone holds of a key, as another owner would,
// and forgets it behind a horizon.
func Forget(db *DB, key string) error {
	rec, _, err := db.tree.Read([]byte(key))
	if err != nil {
		return err
	}
	rec.Max.Stamp++
	if err := db.tree.ApplySync([]lsm.Record{{Token: rec.Token, Key: rec.Key, Min: rec.Max, Max: rec.Max, Kind: lsm.Tombstone}}); err != nil {
		return err
	}
	if s := TakeRound(db); s[2] != replica.OK {
		return fmt.Errorf("round: %v", s)
	}
	return Compact(db)
}

// AddLate adds an element to the set at a key, of which it has read what was deleted and
// forgotten before it writes.
func AddLate(db *DB, key, element string) error {
	ctx := context.Background()
	var base replica.Record
	if _, err := db.read(ctx, key, Quorum, &base); err != nil {
		return err
	}
	base.Value = bytes.Clone(base.Value)
	if err := Forget(db, key); err != nil {
		return err
	}
	_, err := db.writeCausal(ctx, &causalWrite{op: opUpdate, key: key, level: Quorum, mutation: &crdt.Mutation{Kind: crdt.SetKind, Add: []string{element}}, base: base})
	return err
}

// Exchange runs one routine exchange with each peer and gives the bytes moved.
func Exchange(db *DB) (bytes int, err error) {
	for uid := range db.view.Load().mates() {
		r, err := db.exchange(nil, uid, exchangePiece{routine: true})
		if err != nil {
			return 0, err
		}
		bytes += r.bytes
	}
	return bytes, nil
}

// Flush has a node's engine bring what is in memory to tables.
func Flush(db *DB) error { return db.tree.Flush() }

// DataDir is where the engine of the node in dir has its files.
func DataDir(dir string) string { return path.Join(dir, "data") }

// Ceiling is the stamp that this node has durably as its highest, and Told the highest
// that another node remembers of it.
func Ceiling(db *DB) uint64 {
	db.clock.raising <- struct{}{}
	defer func() { <-db.clock.raising }()
	return db.clock.ceiling
}

func Told(at, of *DB) (told uint64) {
	at.clocks.mu.Lock()
	defer at.clocks.mu.Unlock()
	for _, l := range at.clocks.mu.lives[of.uid] {
		told = max(told, l.told)
	}
	return told
}

// DecodeIdentity reads the second copy of a node's identity.
func DecodeIdentity(b []byte) (id string, uid uint64, epochs int, err error) {
	k, err := decodeKept(b)
	return k.id, k.uid, len(k.chain), err
}

// Scrub has a node's engine read all of its tables, and gives what is no damage.
func Scrub(db *DB) error {
	if err := db.tree.Scrub(context.Background()); err != nil && !errors.Is(err, lsm.ErrCorrupt) {
		return err
	}
	return nil
}

// CausalActor is the present actor of a node's causal writes.
func CausalActor(db *DB) uint64 { return db.causal.Load() }

// Lose has a node take its data of a key's partition for lost. It tells how many of the
// other keys are in that partition.
func Lose(db *DB, key string, others ...string) (with int, err error) {
	r := db.view.Load().ring
	p := r.Partition(ring.Token(key))
	for _, other := range others {
		if other != key && r.Partition(ring.Token(other)) == p {
			with++
		}
	}
	lo, hi := r.Range(p)
	if err := db.tree.Doubt(lo, min(hi, lastToken), false); err != nil {
		return 0, err
	}
	db.damage.note()
	return with, nil
}
