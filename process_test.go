//go:build unix

package kvstore_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
)

// This file runs a cluster of processes on real disks and sockets, and ends,
// stops and continues them by signals while it writes. Simulations show more
// faults; only this shows the kernel's part.

// processVariable in the environment makes the test's binary a node.
const processVariable = "KVSTORE_TEST_NODE"

func init() { child = runAsNode }

// A processConfig is what a node of its own process is opened with.
type processConfig struct {
	ID, Dir, Listen string
	Seeds           []string
}

// A question goes to a node's standard input as a line, an answer with the same
// number comes back on its standard output.
type question struct {
	N     uint64
	Do    string // "ready", "put", "get"
	Key   string
	Value []byte
}

type answer struct {
	N       uint64
	Error   string
	Outcome kvstore.Outcome
	Found   bool
	Value   []byte
	Members int // that the node sees alive
}

// runAsNode serves as a node if the process was started as one.
func runAsNode() bool {
	text := os.Getenv(processVariable)
	if text == "" {
		return false
	}
	var c processConfig
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = serveProcess(c, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// serveProcess answers until its input ends, which it also does when the parent
// dies.
func serveProcess(c processConfig, in io.Reader, out io.Writer) error {
	db, err := kvstore.Open(c.Dir, &kvstore.Options{NodeID: c.ID, Cluster: "processes", Listen: c.Listen, Seeds: c.Seeds,
		MemoryBytes: 64 << 20, MaxRequest: 3 * time.Second, GossipInterval: 200 * time.Millisecond, SuspectAfter: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	var mu sync.Mutex
	answers := json.NewEncoder(out)
	for questions := json.NewDecoder(in); ; {
		var q question
		if err := questions.Decode(&q); errors.Is(err, io.EOF) {
			return db.Close()
		} else if err != nil {
			return err
		}
		go func() {
			a := reply(db, q)
			mu.Lock()
			defer mu.Unlock()
			_ = answers.Encode(a) // nobody hears it: the parent is gone
		}()
	}
}

func reply(db *kvstore.DB, q question) answer {
	a := answer{N: q.N}
	var err error
	switch q.Do {
	case "ready":
		if err = db.Ready(ctx); err == nil {
			var s kvstore.Status
			s, err = db.Status(ctx)
			for _, m := range s.Members {
				if m.State == "alive" {
					a.Members++
				}
			}
		}
	case "put":
		_, err = db.Put(ctx, q.Key, q.Value)
		a.Outcome = kvstore.OutcomeOf(err)
	case "get":
		var it kvstore.Item
		it, err = db.Get(ctx, q.Key)
		if a.Found = err == nil; a.Found {
			a.Value = it.Value
		} else if errors.Is(err, kvstore.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// A process is a place in the cluster and the process that has it now.
type process struct {
	config  processConfig
	log     *os.File
	served  func() // called when it begins to serve
	number  atomic.Uint64
	readers sync.WaitGroup

	mu struct {
		sync.Mutex
		serving bool // it takes requests
		cmd     *exec.Cmd
		in      io.WriteCloser
		pending map[uint64]chan answer // each of capacity 1
	}
}

// start starts a process, which serves once it is ready.
func (p *process) start() error {
	text, err := json.Marshal(p.config)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+string(text))
	cmd.Stderr = p.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	pending := map[uint64]chan answer{}
	p.mu.Lock()
	p.mu.cmd, p.mu.in, p.mu.pending = cmd, in, pending
	p.mu.Unlock()
	p.readers.Go(func() { p.read(out, pending) })
	p.readers.Go(func() {
		if a := p.ask(question{Do: "ready"}); a.Error == "" {
			p.serve()
		}
	})
	return nil
}

// read hands out answers until the process ends; whoever still waits then gets
// an unknown outcome.
func (p *process) read(out io.Reader, pending map[uint64]chan answer) {
	for answers := json.NewDecoder(bufio.NewReader(out)); ; {
		var a answer
		if answers.Decode(&a) != nil {
			break
		}
		p.mu.Lock()
		c := pending[a.N]
		delete(pending, a.N)
		p.mu.Unlock()
		c <- a
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, c := range pending {
		delete(pending, n)
		c <- answer{Error: "the process ended", Outcome: kvstore.Unknown}
	}
}

// ask puts a question to the process that runs now.
func (p *process) ask(q question) answer {
	q.N = p.number.Add(1)
	line, err := json.Marshal(q)
	if err != nil {
		panic(err)
	}
	c := make(chan answer, 1)
	p.mu.Lock()
	in, pending := p.mu.in, p.mu.pending
	pending[q.N] = c
	p.mu.Unlock()
	if _, err := in.Write(append(line, '\n')); err != nil {
		p.mu.Lock()
		delete(pending, q.N)
		p.mu.Unlock()
		select {
		case a := <-c: // read was first
			return a
		default:
			return answer{Error: err.Error(), Outcome: kvstore.Unknown}
		}
	}
	return <-c
}

func (p *process) serve() {
	p.mu.Lock()
	p.mu.serving = true
	p.mu.Unlock()
	p.served()
}

func (p *process) serving() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.serving
}

// signal sends a signal that keeps the process from serving, until it says that
// it is ready or is told to go on.
func (p *process) signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.serving = false
	return p.mu.cmd.Process.Signal(s)
}

// proceed continues a stopped process.
func (p *process) proceed() error {
	err := p.signal(syscall.SIGCONT)
	p.serve()
	return err
}

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() error {
	if err := p.signal(os.Kill); err != nil {
		return err
	}
	p.readers.Wait()
	p.mu.Lock()
	cmd := p.mu.cmd
	p.mu.serving = false // it may have become ready meanwhile
	p.mu.Unlock()
	_ = cmd.Wait() // it was killed
	return nil
}

// tell has the process say where it is, and logs all that it has said.
func (p *process) tell(t *testing.T) {
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(syscall.SIGQUIT) // ends it with its goroutines' stacks
	p.readers.Wait()
	said, err := os.ReadFile(p.log.Name())
	t.Logf("%s said (%v):\n%s", p.config.ID, err, said)
}

// A processCluster is three processes and what was written to them.
type processCluster struct {
	nodes    []*process
	progress chan struct{} // capacity 1: something was acknowledged
	acked    atomic.Int64
	reads    atomic.Int64
	changed  *sync.Cond // on mu: a node began to serve, or was asked less, or the end was called for
	mu       struct {
		sync.Mutex
		retired []ledger
		wrong   []string
		over    bool
		asking  map[*process]int
	}
}

// A ledger is what one writer knows of one key. After a write with an unknown
// outcome the key is not written any more, so that at most one is in question.
type ledger struct {
	key     string
	acked   int  // number of the value that was acknowledged last; 0 is none
	tried   int  // number of the value that was written last
	unknown bool // the outcome of that
	seen    bool // it was read at Quorum all the same
}

func newProcessCluster(t *testing.T) *processCluster {
	c := &processCluster{progress: make(chan struct{}, 1)}
	c.changed = sync.NewCond(&c.mu)
	c.mu.asking = map[*process]int{}
	dir := t.TempDir()
	for i := range 3 {
		// Addresses of their own, so that nobody takes the port of a dead node
		// for an outgoing connection.
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", 11+i))
		require.NoError(t, err)
		id := fmt.Sprint("node-", i)
		log, err := os.Create(filepath.Join(dir, id+".log"))
		require.NoError(t, err)
		t.Cleanup(func() { log.Close() })
		p := &process{config: processConfig{ID: id, Dir: filepath.Join(dir, id), Listen: l.Addr().String()},
			log: log, served: c.wake}
		if i > 0 {
			p.config.Seeds = []string{c.nodes[0].config.Listen}
		}
		require.NoError(t, l.Close())
		c.nodes = append(c.nodes, p)
		require.NoError(t, p.start())
		t.Cleanup(func() {
			if t.Failed() {
				p.tell(t)
			}
			require.NoError(t, p.kill())
		})
	}
	c.settle(t)
	return c
}

// settle waits until every node serves and sees all others alive.
func (c *processCluster) settle(t *testing.T) {
	for _, p := range c.nodes {
		require.Eventually(t, func() bool {
			a := p.ask(question{Do: "ready"})
			return a.Error == "" && a.Members == len(c.nodes) && p.serving()
		}, time.Minute, 20*time.Millisecond, "%s is not ready", p.config.ID)
	}
}

// wake lets those look again who found no node that serves.
func (c *processCluster) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed.Broadcast()
}

// end makes the writers end.
func (c *processCluster) end() {
	c.mu.Lock()
	c.mu.over = true
	c.mu.Unlock()
	c.wake()
}

// mostAsking is how many of the writers may ask one node at a time: who asks one that
// is then stopped waits, and others have to go on.
const writers, mostAsking = 16, 10

// pick gives a node that serves, for one question until done, and waits for one; nil
// when the end was called for.
func (c *processCluster) pick(r *rand.Rand) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.mu.over {
		for _, i := range r.Perm(len(c.nodes)) {
			if p := c.nodes[i]; p.serving() && c.mu.asking[p] < mostAsking {
				c.mu.asking[p]++
				return p
			}
		}
		c.changed.Wait()
	}
	return nil
}

func (c *processCluster) done(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.asking[p]--
	c.changed.Broadcast()
}

// write writes and reads keys of its own until the end.
func (c *processCluster) write(worker int, r *rand.Rand) {
	var mine [8]ledger
	made := 0
	fresh := func() ledger {
		made++
		return ledger{key: fmt.Sprintf("%d/%d", worker, made)}
	}
	for i := range mine {
		mine[i] = fresh()
	}
	for p := c.pick(r); p != nil; p = c.pick(r) {
		l := &mine[r.IntN(len(mine))]
		if r.IntN(4) == 0 {
			c.read(p, l)
			c.done(p)
			continue
		}
		l.tried++
		a := p.ask(question{Do: "put", Key: l.key, Value: check.Value(l.key, l.tried, 100+r.IntN(1000))})
		c.done(p)
		switch {
		case a.Error == "":
			l.acked = l.tried
			c.acked.Add(1)
			select {
			case c.progress <- struct{}{}:
			default:
			}
		case a.Outcome == kvstore.Unknown:
			l.unknown = true
			c.retire(*l)
			*l = fresh()
		}
	}
	for i := range mine {
		c.retire(mine[i])
	}
}

func (c *processCluster) retire(l ledger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.retired = append(c.mu.retired, l)
}

// read compares what a node answers with what the ledger says. It reports
// whether there was an answer.
func (c *processCluster) read(p *process, l *ledger) bool {
	a := p.ask(question{Do: "get", Key: l.key})
	if a.Error != "" {
		return false
	}
	c.reads.Add(1)
	id, intact := 0, true
	if a.Found {
		if intact = check.Intact(l.key, a.Value); intact {
			_, _ = fmt.Sscanf(string(a.Value[len(l.key):]), " #%d ", &id)
		}
	}
	later := l.unknown && id == l.tried
	if !intact || !later && (l.seen || id != l.acked) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.wrong = append(c.mu.wrong, fmt.Sprintf("read from %s: %d of %d bytes (intact: %v); the ledger says %+v", p.config.ID, id, len(a.Value), intact, *l))
	}
	l.seen = l.seen || later
	return true
}

// await waits until n more writes were acknowledged, which takes two nodes that
// run.
func (c *processCluster) await(t *testing.T, n int64) {
	limit := time.After(2 * time.Minute)
	for until := c.acked.Load() + n; c.acked.Load() < until; {
		select {
		case <-c.progress:
		case <-limit:
			t.Fatal("no write is acknowledged")
		}
	}
}

// disturb does something to one, two or all nodes and ends with all running.
func (c *processCluster) disturb(t *testing.T, r *rand.Rand) (kills, stops int) {
	order := r.Perm(len(c.nodes))
	first, second := c.nodes[order[0]], c.nodes[order[1]]
	kill := func(p *process) {
		require.NoError(t, p.kill())
		kills++
	}
	switch r.IntN(6) {
	case 0, 1: // one dies, and others write meanwhile
		kill(first)
		c.await(t, r.Int64N(50))
		require.NoError(t, first.start())
	case 2: // one hangs, and others write meanwhile
		require.NoError(t, first.signal(syscall.SIGSTOP))
		stops++
		c.await(t, r.Int64N(50))
		require.NoError(t, first.proceed())
	case 3: // some die at once
		n := 2 + r.IntN(2)
		for _, i := range order[:n] {
			kill(c.nodes[i])
		}
		for _, i := range order[:n] {
			require.NoError(t, c.nodes[i].start())
		}
	case 4: // one hangs while another dies
		require.NoError(t, first.signal(syscall.SIGSTOP))
		stops++
		kill(second)
		require.NoError(t, first.proceed())
		require.NoError(t, second.start())
	default: // one dies again before it was ready
		kill(first)
		require.NoError(t, first.start())
		kill(first)
		require.NoError(t, first.start())
	}
	return kills, stops
}

// TestProcesses: three processes that sync every write are killed and stopped in
// random order under load. No acknowledged write is lost, no byte is wrong, and
// what a quorum read has seen stays (I1, I4, I8).
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	signals := 20
	if os.Getenv("KVSTORE_TORTURE") != "" {
		signals = 1000
	}
	seed := rand.Uint64()
	t.Logf("seed %d (it fixes the order of signals, not their moments)", seed)
	c := newProcessCluster(t)
	var workers sync.WaitGroup
	for w := range writers {
		workers.Go(func() { c.write(w, rand.New(rand.NewPCG(seed, uint64(w)))) })
	}
	// Also when the test ends early: no question stays without an answer.
	t.Cleanup(workers.Wait)
	t.Cleanup(func() {
		c.end()
		for _, p := range c.nodes {
			_ = p.signal(syscall.SIGCONT)
		}
	})
	r := rand.New(rand.NewPCG(seed, 1<<32))
	kills, stops := 0, 0
	for kills+stops < signals {
		c.await(t, 1+r.Int64N(50))
		k, s := c.disturb(t, r)
		kills, stops = kills+k, stops+s
	}
	c.await(t, 100)
	c.end()
	workers.Wait()
	c.settle(t)
	for i := range c.mu.retired {
		l := &c.mu.retired[i]
		for _, p := range c.nodes {
			require.Eventually(t, func() bool { return c.read(p, l) }, time.Minute, 10*time.Millisecond, "%s cannot be read", l.key)
		}
	}
	unknown := 0
	for _, l := range c.mu.retired {
		if l.unknown {
			unknown++
		}
	}
	t.Logf("%d kills, %d stops, %d writes acknowledged, %d with unknown outcome, %d reads compared, %d wrong",
		kills, stops, c.acked.Load(), unknown, c.reads.Load(), len(c.mu.wrong))
	require.Empty(t, c.mu.wrong)
	require.NotZero(t, c.acked.Load())
}
