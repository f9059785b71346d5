package kvstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"example.com/kvstore/gossip"
	"example.com/kvstore/lsm"
	"example.com/kvstore/lsm/vfs"
	"example.com/kvstore/replica"
	"example.com/kvstore/ring"
	"example.com/kvstore/topology"
	"example.com/kvstore/transport"
)

// A DB is an open node: storage, replica and coordinator. All methods may be
// called concurrently. A nil context is ErrInvalid.
type DB struct {
	opts  Options
	id    string // of this node
	uid   uint64 // of its directory
	boots uint64 // starts of it so far
	dir   string
	actor uint64 // of this start: in the dot of every plain write it issues (I6)
	// causal is the actor of its causal writes: another one, since a version vector
	// claims all earlier dots of an actor.
	causal  atomic.Uint64
	tree    *lsm.Tree
	sys     *system
	clock   *stamper
	clocks  clocks
	mux     *transport.Mux // nil without a listener
	members *members
	fence   fence
	hints   *hints
	intake  intake
	// salts counts the salts drawn for exchanges.
	salts     atomic.Uint64
	exchanges *exchanges
	sessions  *sessions
	horizons  *horizons
	damage    *damage
	isolating bool // without what is damaged: see isolates

	view   atomic.Pointer[view] // nil until the first epoch is known
	gate   *gate                // the callers' calls
	writes pool[writeCall]
	reads  pool[readCall]
	// replies collects answers to other coordinators; the log's goroutine owns
	// it.
	replies transport.Flusher
	workers *workers
	// readers read the own copy for the own callers.
	readers *workers
	// coordinators carry out the causal writes that others forwarded here.
	coordinators *workers
	// keys are held by causal writes while they read and apply a key, turns by
	// Updates from their read to their write. A turn is taken first.
	keys, turns keyLocks
	precedence  precedence
	sweeper     sweeper
	metrics     counters

	// started is set when all of the above is in place: connections arrive from
	// the moment the listener is open.
	started atomic.Bool
	ready   atomic.Bool
	// trusted is set when the others were asked whether they know of anything that this
	// directory should have and lacks. Before nothing is read of it.
	trusted atomic.Bool
	readied chan struct{} // closed when ready is set
	closing atomic.Bool
	closed  chan struct{} // closed at the end of Close, when closeErr is set
	stop    chan struct{} // closed by Close: loops end
	// background is cancelled by Close.
	background context.Context
	cancel     context.CancelFunc
	loops      sync.WaitGroup
	closeErr   error
}

// Open opens the node whose data is in dir, creating it if there is none; dir ""
// keeps everything in memory. It returns as soon as the node runs; Ready waits
// until it can serve.
//
// Errors: ErrInvalid for options that cannot work, ErrLocked for a directory in
// use, ErrIncompatible for one of a newer format or of another cluster or node,
// ErrCorrupt for a damaged file, ErrListen for an address that cannot be used.
func Open(dir string, o *Options) (*DB, error) {
	opts := o.withDefaults(dir)
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if dir == "" {
		dir = "/kvstore"
	}
	db := &DB{
		dir:     dir,
		opts:    opts,
		gate:    newGate(),
		workers: newWorkers(maxWorkers),
		readers: newWorkers(maxReaders),
		// Their own, so that causal writes, which wait for others, leave the reads
		// theirs.
		coordinators: newWorkers(maxForwarded),
		readied:      make(chan struct{}),
		closed:       make(chan struct{}),
		stop:         make(chan struct{}),
	}
	db.hints, db.exchanges = newHints(db), newExchanges(db)
	db.horizons = newHorizons(db)
	db.damage = newDamage(db)
	db.sessions = newSessions()
	db.intake.mu.throttle = replica.NewThrottle(intakeRate, intakeBurst)
	db.background, db.cancel = context.WithCancel(context.Background())
	db.clocks.db = db
	db.clocks.mu.readings, db.clocks.mu.lives = map[string]reading{}, map[uint64][]life{}
	db.sweeper.kick = make(chan struct{}, 1)
	db.writes = pool[writeCall]{limit: maxInFlight, make: func() *writeCall {
		c := &writeCall{db: db, decided: make(chan struct{}, 1)}
		c.mu.settled = true
		c.local = c.localDone
		return c
	}}
	db.reads = pool[readCall]{limit: maxInFlight, make: func() *readCall {
		c := &readCall{db: db, decided: make(chan struct{}, 1)}
		c.mu.settled = true
		return c
	}}
	err := db.open(dir)
	if err == nil {
		err = db.checkFormed(o)
	}
	if err != nil {
		return nil, errors.Join(err, db.release())
	}
	db.started.Store(true)
	db.loops.Go(db.members.loop)
	db.loops.Go(db.sweep)
	db.loops.Go(db.hints.loop)
	db.loops.Go(db.exchanges.loop)
	db.loops.Go(db.horizons.loop)
	db.loops.Go(db.damage.loop)
	db.loops.Go(func() { db.members.seeds.watch(db.background, db.opts.Logger) })
	return db, nil
}

// checkFormed refuses options that differ from how the node's cluster was formed, if
// the node is a member already.
func (db *DB) checkFormed(o *Options) error {
	v := db.view.Load()
	switch {
	case o == nil || v == nil:
	case o.N != 0 && o.N != v.ring.N():
		return invalid("Options.N is %d, but the cluster was formed with %d, which cannot change; leave N out", o.N, v.ring.N())
	case o.SloppyQuorum && !v.epoch.Sloppy:
		return invalid("Options.SloppyQuorum is set, but the cluster was formed without it, which cannot change; leave SloppyQuorum out")
	case o.Partitions != 0 && o.Partitions != v.ring.Partitions():
		return invalid("Options.Partitions is %d, but the cluster was formed with %d, which cannot change; leave Partitions out", o.Partitions, v.ring.Partitions())
	}
	return nil
}

// open builds the node from the bottom up.
func (db *DB) open(dir string) error {
	if err := vfs.MakeDir(db.opts.FS, dir); errors.Is(err, lsm.ErrNoSpace) {
		return openError(dir, err)
	} else if err != nil {
		return noDirectory(dir, err)
	}
	if vacant, err := db.vacant(); err != nil {
		return openError(dir, err)
	} else if vacant {
		if err := db.inheritIdentity(); err != nil {
			return err
		}
	}
	db.isolating = db.isolates()
	tree, err := lsm.Open(db.dataDir(), &lsm.Options{
		FS:   db.opts.FS,
		Sync: db.opts.Sync,
		// The rest is for the queues to peers.
		MemoryBytes: db.opts.MemoryBytes - db.opts.MemoryBytes/16,
		// Room for a burst of large values, before calls are refused.
		LogBufferBytes: int(min(db.opts.MemoryBytes/16, 2*hardValueBytes)),
		GroupDone:      db.replies.Flush,
		Now:            db.opts.Clock,
		Identity:       db.opts.directory(),
		Random:         db.opts.random(),
		Logger:         db.opts.Logger,
		// Tombstones are kept until the owners can prove that all of them have
		// what they cover.
		Horizon: db.horizons.purge,
		ColdDir: db.opts.ColdDir, ColdAfter: db.opts.ColdAfter,
		// Others have the data too, if there are others.
		Isolate:             db.isolating,
		OnDamage:            db.damage.found,
		ScrubBytesPerSecond: scrubRate,
	})
	if err != nil {
		return openError(dir, err)
	}
	db.tree = tree
	db.sys = newSystem(tree, db.opts.Clock())
	if err := errors.Join(db.damage.open(), db.damage.lapse()); err != nil {
		return openError(dir, err)
	}
	if err := db.identify(dir); err != nil {
		return err
	}
	if db.clock, err = newStamper(db.opts.Clock, db.opts.MaxClockOffset, db.sys); err != nil {
		return openError(dir, err)
	}
	for _, err := range tree.Scan(0, lastToken) {
		if err != nil && !(db.isolating && errors.Is(err, lsm.ErrCorrupt)) {
			return openError(dir, err)
		}
		db.fence.data.Store(true)
		break
	}
	if err := errors.Join(db.hints.load(), db.exchanges.load()); err != nil {
		return openError(dir, err)
	}
	return db.meet(dir)
}

// identify reads who this node is, or decides it, and counts the start.
func (db *DB) identify(dir string) error {
	id, err := db.sys.get(sysNode)
	if err != nil {
		return openError(dir, err)
	}
	name, err := db.sys.get(sysCluster)
	if err != nil {
		return openError(dir, err)
	}
	boots, err := db.sys.uint64(sysBoots)
	if err != nil {
		return openError(dir, err)
	}
	uid, err := db.sys.uint64(sysUID)
	if err != nil {
		return openError(dir, err)
	}
	if db.damage.salvaged {
		k, err := db.readIdentity()
		if err != nil && (id == nil || name == nil || uid == 0) {
			return fmt.Errorf("%s: the identity of the node was lost with a damaged file, and its second copy cannot be read; start it with an empty directory and another Options.NodeID: %w", dir, err)
		}
		if err == nil {
			id, name, uid = []byte(k.id), []byte(k.cluster), k.uid
		}
	}
	if id == nil {
		draw := db.opts.rand(0)
		// The clock keeps a node that lost its disk from being taken for the old
		// one when its seed repeats.
		uid = mix(draw.Uint64() ^ uint64(db.opts.Clock().UnixNano()))
		id = []byte(db.opts.NodeID)
		if len(id) == 0 {
			id = fmt.Appendf(nil, "%016x", draw.Uint64())
		}
		name = []byte(db.opts.Cluster)
	}
	switch {
	case string(name) != db.opts.Cluster:
		return fmt.Errorf("%w: %s belongs to cluster %q, Options.Cluster is %q; use another directory", ErrIncompatible, dir, name, db.opts.Cluster)
	case db.opts.NodeID != "" && string(id) != db.opts.NodeID:
		return fmt.Errorf("%w: %s belongs to node %q, Options.NodeID is %q; use another directory", ErrIncompatible, dir, id, db.opts.NodeID)
	}
	boots++
	db.id, db.uid, db.boots = string(id), uid, boots
	db.opts.NodeID = db.id
	// Drawn anew at each start, also by a copy of the directory. The clock is for
	// seeds that repeat.
	draw, clock := db.opts.rand(boots), uint64(db.opts.Clock().UnixNano())
	db.actor = max(mix(draw.Uint64()^clock), 1)
	causal := max(mix(draw.Uint64()^clock), 1)
	if !defences.FreshActors {
		if old, err := db.sys.uint64(sysCausal); err == nil && old != 0 {
			causal = old
		}
	}
	if !defences.CausalActors {
		causal = db.actor
	}
	db.causal.Store(causal)
	err = db.sys.set(setting{sysNode, id}, setting{sysCluster, name}, number(sysUID, uid), number(sysBoots, boots), number(sysCausal, causal))
	return engineError(err)
}

// meet listens, and starts the protocols of the cluster.
func (db *DB) meet(dir string) error {
	chain, err := db.sys.chain()
	if err != nil {
		return openError(dir, err)
	}
	if db.damage.salvaged {
		k, err := db.readIdentity()
		if len(k.chain) > len(chain) {
			chain = k.chain
		}
		if len(chain) == 0 {
			return fmt.Errorf("%s: what the node knew of its cluster was lost with a damaged file; start it with an empty directory and another Options.NodeID: %w", dir, errors.Join(ErrCorrupt, err))
		}
		db.fence.data.Store(true) // it may have been, and then no join was promised
	}
	if n := len(chain); n > 0 {
		if err := db.horizons.load(chain[n-1].Ring.Partitions()); err != nil {
			return openError(dir, err)
		}
	}
	state, err := db.sys.get(sysTopology)
	if err != nil {
		return openError(dir, err)
	}
	boots := db.boots
	m := newMembers(db)
	db.members = m
	addr := ""
	if db.opts.Listen != "" {
		t := db.opts.Transport
		if t == nil {
			t = transport.TCP()
		}
		db.mux, err = transport.NewMux(t, transport.MuxConfig{
			Listen: db.opts.Listen, Advertise: db.opts.Advertise,
			Identity: db.identity, ClusterKey: db.opts.ClusterKey, TLS: db.opts.TLS,
			Limits: transport.Limits{
				FrameBytes: hardRecordBytes + 2*hardKeyBytes,
				QueueBytes: int(max(db.opts.MemoryBytes/64, 2*hardValueBytes)),
			},
			Handle: db.handle, Seed: db.opts.rand(boots).Uint64(),
		})
		if err != nil {
			return fmt.Errorf("%w on %q: %w; choose an address of this machine on which no other process listens", ErrListen, db.opts.Listen, err)
		}
		addr = db.mux.Addr()
	}
	if n := len(chain); n > 0 && len(chain[n-1].Members) > 1 && db.mux == nil {
		return invalid("Options.Listen is empty, but the node is a member of a cluster of %d nodes; set the address that they reach it at", len(chain[n-1].Members))
	}
	m.seeds = newSeeds(db.opts.Seeds, addr)
	self := topology.Member{
		Node: ring.Node{ID: db.id, Zone: db.opts.Zone, DataCenter: db.opts.DataCenter, Weight: db.opts.Weight},
		Addr: addr, UID: db.uid,
	}
	founding := len(chain) == 0 && (len(db.opts.Seeds) == 0 || db.opts.Bootstrap)
	if founding {
		var cluster [16]byte
		draw := db.opts.rand(boots)
		for i := range cluster {
			cluster[i] = byte(draw.Uint32())
		}
		first, err := topology.Bootstrap(cluster, db.opts.Cluster, self, db.opts.Partitions, db.opts.N, db.opts.SloppyQuorum)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		b, err := first.AppendBinary(nil)
		if err != nil {
			return err
		}
		if err := db.sys.set(setting{epochKey(first.Number), b}); err != nil {
			return engineError(err)
		}
		chain = append(chain, first)
	}
	config := topology.Config{
		Self: self, Name: db.opts.Cluster, State: state, Chain: chain, Seeds: m.seeds.addrs, Seed: db.opts.rand(boots).Uint64(),
		Fence: db.fence.raise, Unfence: func() { m.unfence = true }, Gone: m.gone, Whole: m.whole, TakenFor: 2 * db.opts.givenUp(),
	}
	m.agent, err = topology.NewAgent(config)
	if db.damage.salvaged && errors.Is(err, topology.ErrCorrupt) { // it is of an epoch that was lost
		config.State = nil
		m.agent, err = topology.NewAgent(config)
	}
	if err != nil {
		if !errors.Is(err, topology.ErrCorrupt) {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	m.current = m.agent.Current()
	if err := db.keepIdentity(m.agent.Chain(0)); err != nil {
		db.opts.Logger.Warn("kvstore: the second copy of the node's identity is not up to date", "err", err)
	}
	if db.mux != nil {
		m.gossip = gossip.New(gossip.Config{ID: db.id, Addr: addr, Incarnation: boots, Seeds: m.seeds.addrs(),
			Interval: db.opts.GossipInterval, SuspectAfter: db.opts.SuspectAfter, Seed: db.opts.rand(boots).Uint64(), Meta: m.meta()})
	}
	if m.current != nil {
		if err := db.damage.restrain(m.view(m.current)); err != nil {
			return openError(dir, err)
		}
	}
	m.publish()
	if m.current != nil {
		m.checkPlace()
	}
	if len(chain) == 0 {
		m.agent.Join(now())
	}
	m.settle()
	return nil
}

// identity is what this node says of itself when a connection opens.
func (db *DB) identity() transport.Identity {
	id := transport.Identity{Name: db.opts.Cluster, Node: db.id, Boot: db.actor}
	if !db.started.Load() {
		return id
	}
	id.Addr = db.mux.Addr()
	if v := db.view.Load(); v != nil {
		id.Cluster = v.epoch.Cluster
	}
	return id
}

// Ready waits until the node is a member of its cluster and able to serve, or
// ctx is over. It does not wait for nodes that have yet to join: the first node is
// ready alone. But a member of several that starts again waits until a majority of them is
// up: open all nodes before you wait for the first. It fails with ErrJoinRefused when
// the cluster will not take the node, and with ErrNotReady, and what it was waiting for,
// when ctx ends first; so it does when no node that it can reach belongs to its cluster
// or has its key, or when its NodeID is that of a live member, since each of these may pass.
//
// A node that lost its data is ready before it has everything back: until then reads
// that need its copy fail, and DamageInfo and Explain show it.
//
// The other nodes count a node among the live ones when they hear from it, which may
// be some heartbeats later: until then Status shows it as unknown, or as it was before,
// and calls through them that need its answer get ErrUnavailable, which is Retryable.
func (db *DB) Ready(ctx context.Context) error {
	if ctx == nil {
		return errNoContext
	}
	if db.closing.Load() {
		return ErrClosed
	}
	if db.ready.Load() {
		return nil
	}
	select {
	case <-db.readied:
	case <-db.members.troubled:
	case <-db.stop:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", db.notReady(), ctx.Err())
	}
	if db.ready.Load() {
		return nil
	}
	if p := db.members.trouble.Load(); p != nil && errors.Is(*p, ErrJoinRefused) {
		return *p // it will not be ready later either
	}
	return db.notReady()
}

// Close ends the node: it tells the members that have connections to it and waits, a second
// at most, until they have their answers and hang up; it waits for the calls that
// are running (each at most MaxRequest), syncs, and leaves no goroutine, lock or open
// file behind. It does not wait for what callers do inside a call: the function of an
// Update and the body of a loop over Scan may call it, and get ErrClosed from then on.
// A merge function and an EventListener must not.
// The node keeps its place in the cluster and is expected back. Close may be
// called twice; it returns the first error that lost nothing but should be
// known.
func (db *DB) Close() error {
	if !db.gate.shut() {
		<-db.closed
		return db.closeErr
	}
	if db.mux != nil {
		db.mux.Leave(leaveTime)
	}
	db.closing.Store(true)
	<-db.gate.drained
	db.closeErr = db.release()
	close(db.closed)
	return db.closeErr
}

// leaveTime bounds how long Close waits for the other members to hang up.
const leaveTime = time.Second

// release gives back whatever of the node is running.
func (db *DB) release() error {
	db.closing.Store(true)
	close(db.stop)
	db.cancel()
	db.loops.Wait()
	var errs []error
	if db.mux != nil {
		errs = append(errs, db.mux.Close())
	}
	db.coordinators.wait()
	db.workers.wait()
	db.readers.wait()
	if db.clock != nil {
		errs = append(errs, db.clock.rest(), db.damage.rest())
	}
	if db.tree != nil {
		errs = append(errs, db.tree.Close())
	}
	return errors.Join(errs...)
}

// heed takes in what every reply carries: the other node's stamp, not adopted
// when it is too far ahead, and its epoch.
func (db *DB) heed(p *replica.Reply, from *peer) {
	_ = db.clock.Observe(p.Stamp)
	if p.Epoch > db.view.Load().epoch.Number {
		db.members.hear(from.Addr(), p.Epoch)
	}
}

// rand is a source of the node's random choices, repeatable when Options.Seed
// is set.
func (o *Options) rand(stream uint64) *rand.Rand {
	seed := o.Seed
	if seed == 0 {
		return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	for _, b := range []byte(o.NodeID + o.Listen) {
		seed = mix(seed ^ uint64(b))
	}
	return rand.New(rand.NewPCG(seed, stream))
}

// givenUp is how long it takes until a member that has ended counts as dead, with some
// margin.
func (o *Options) givenUp() time.Duration { return 2*o.SuspectAfter + 5*o.GossipInterval }

// directory is the identity of a new data directory; zero lets the engine draw
// one.
func (o *Options) directory() (id [16]byte) {
	if o.Seed != 0 {
		draw := o.rand(uint64(o.Clock().UnixNano()))
		binary.LittleEndian.PutUint64(id[:8], draw.Uint64())
		binary.LittleEndian.PutUint64(id[8:], draw.Uint64())
	}
	return id
}

// random is the engine's source of numbers that nobody may foresee; nil leaves them
// to the engine.
func (o *Options) random() func() uint64 {
	if o.Seed == 0 {
		return nil
	}
	return o.rand(mix(uint64(o.Clock().UnixNano()))).Uint64
}

// mix is a bijection whose output bits all depend on all input bits (the
// finalizer of SplitMix64, Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
