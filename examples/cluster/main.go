// Command cluster shows kvstore at work: it runs a cluster of processes on this
// machine, stores the source tree of Go in it, kills one node under load,
// restarts it, and accounts for every write.
//
//	go run ./examples/cluster             # a table that repaints itself
//	go run ./examples/cluster -headless   # one line per step
//
// The program starts itself once per node. Each child is a service as anyone
// would write it (service.go): it embeds a node and serves a small HTTP API.
// The parent is the services' user, and knows what it was promised: it exits
// with 1 when an acknowledged write was lost, when other bytes came back than
// went in, or when a request failed that should not have.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports a program that SIGINT ended

	minNodes = 3 // with fewer, a quorum does not survive the loss of one
	maxNodes = 16
)

// settings are the flags.
type settings struct {
	nodes    int
	headless bool
	dir      string
	source   string
	maxFile  int
	files    int
	callers  int
	outage   time.Duration
}

func main() {
	if c, ok := childConfig(); ok {
		if err := serveNode(c, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailed)
		}
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the parent. It returns the exit status.
func run(args []string, out, errs *os.File) int {
	s, err := parse(args, errs)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(errs, "cluster:", err)
		return exitUsage
	}
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	context.AfterFunc(ctx, restore) // a second Ctrl-C ends the parent at once, and with it its children
	t, err := newTour(s)
	if err == nil {
		var show display = headless{out}
		if !s.headless && terminal(out) {
			show = newScreen(out, t)
		}
		err = t.run(ctx, show)
		t.summarize(out)
	}
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(errs, "cluster: interrupted")
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(errs, "cluster:", err)
		return exitFailed
	case !t.score.clean():
		fmt.Fprintln(errs, "cluster: not everything went as promised; see above")
		return exitFailed
	}
	return 0
}

func parse(args []string, errs io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.SetOutput(errs)
	f.IntVar(&s.nodes, "nodes", 3, "`number` of nodes")
	f.BoolVar(&s.headless, "headless", false, "print one line per step, as also when the output is not a terminal")
	f.StringVar(&s.dir, "dir", "", "empty `directory` for data and logs, kept at the end (default a temporary one, removed at the end)")
	f.StringVar(&s.source, "src", "", "`directory` whose files are stored (default $(go env GOROOT)/src)")
	f.IntVar(&s.maxFile, "max-file", 1<<20, "skip files of more `bytes`")
	f.IntVar(&s.files, "files", 0, "store at most so `many` files (default all)")
	f.IntVar(&s.callers, "callers", 32, "`number` of requests in flight")
	f.DurationVar(&s.outage, "outage", 8*time.Second, "how `long` reads and writes go on around the kill, before the restart")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	switch {
	case f.NArg() > 0:
		return s, fmt.Errorf("unknown argument %q; there are only flags, see -help", f.Arg(0))
	case s.nodes < minNodes || s.nodes > maxNodes:
		return s, fmt.Errorf("-nodes is %d; use %d to %d", s.nodes, minNodes, maxNodes)
	case s.maxFile < 0 || s.maxFile > maxValueBytes-tagBytes:
		return s, fmt.Errorf("-max-file is %d; use 0 to %d", s.maxFile, maxValueBytes-tagBytes)
	case s.callers < 1 || s.files < 0 || s.outage < 0:
		return s, errors.New("-callers must be positive, -files and -outage not negative")
	}
	if s.source == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return s, fmt.Errorf("go env GOROOT: %w; name a directory of files with -src", err)
		}
		s.source = filepath.Join(strings.TrimSpace(string(root)), "src")
	}
	return s, nil
}

// terminal reports whether f is a terminal rather than a file or a pipe.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
