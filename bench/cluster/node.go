package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"example.com/kvstore"
)

// nodeVariable in the environment makes the process a node; its value is the
// configuration.
const nodeVariable = "KVSTORE_BENCH_NODE"

// A nodeConfig is what a node is started with.
type nodeConfig struct {
	ID, Dir, Listen string
	Seeds           []string
	Every           time.Duration // sync interval, 0 syncs always
	Keys            int
	ValueBytes      int
}

// A command goes to a node's standard input, one JSON object per line; each gets
// one answer on its standard output.
type command struct {
	Do          string // "ready", "fill", "run", "hints"
	Part, Parts int    // fill: the keys of this node
	Workload    string
	Callers     int
	Rate        float64   // run: operations a second of all callers; 0: as many as they can
	From, Until time.Time // run: what is counted
}

// An answer is what a node measured between From and Until.
type answer struct {
	Error  string
	Tally  tally
	Before counters
	After  counters
	Hints  int // that the node keeps for others, and partitions that need an exchange
}

// counters only grow; the difference of two snapshots belongs to a workload.
type counters struct {
	CPU          time.Duration // user and system, this process
	Mallocs      uint64
	SocketWrites uint64
	LogWrites    uint64
	LogSyncs     uint64
}

// runAsNode serves as a node if the process was started as one.
func runAsNode() bool {
	text := os.Getenv(nodeVariable)
	if text == "" {
		return false
	}
	var c nodeConfig
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = serve(c, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
	return true
}

// serve opens a node and does what it is told until its input ends, which it
// also does when the parent dies.
func serve(c nodeConfig, in io.Reader, out io.Writer) error {
	o := &kvstore.Options{NodeID: c.ID, Listen: c.Listen, Seeds: c.Seeds}
	if c.Every > 0 {
		o.Sync = kvstore.SyncEvery(c.Every)
	}
	db, err := kvstore.Open(c.Dir, o)
	if err != nil {
		return err
	}
	defer db.Close()
	l := load{db: db, keys: keyNames(c.Keys), valueBytes: c.ValueBytes}
	commands, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var cmd command
		switch err := commands.Decode(&cmd); err {
		case nil:
		case io.EOF:
			return db.Close()
		default:
			return err
		}
		if err := answers.Encode(l.do(cmd)); err != nil {
			return err
		}
	}
}

func (l load) do(cmd command) answer {
	var a answer
	var err error
	ctx := context.Background()
	l.callers = cmd.Callers
	switch cmd.Do {
	case "ready":
		err = l.db.Ready(ctx)
	case "hints":
		m := l.db.Metrics()
		a.Hints = m.PendingHints + m.NeedExchange
	case "fill":
		err = l.fill(ctx, cmd.Part, cmd.Parts)
	case "run":
		l.from, l.until, l.rate = cmd.From, cmd.Until, cmd.Rate
		var w workload
		if w, err = named(cmd.Workload); err != nil {
			break
		}
		time.AfterFunc(time.Until(l.from), func() { a.Before = snapshot(l.db) })
		last := make(chan struct{})
		time.AfterFunc(time.Until(l.until), func() { a.After = snapshot(l.db); close(last) })
		a.Tally, err = l.run(ctx, w.op)
		<-last
	default:
		err = fmt.Errorf("no command %q", cmd.Do)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

func snapshot(db *kvstore.DB) counters {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	c := counters{CPU: cpuTime(), Mallocs: mem.Mallocs}
	m := db.Metrics()
	c.SocketWrites, c.LogWrites, c.LogSyncs = m.Transport.Writes, m.Engine.Groups, m.Engine.Syncs
	return c
}
