// Command transport measures what one connection carries: 64-byte requests,
// echoed, by 64 callers, over kvstore's transport, over gRPC, and over nothing
// but a net.Conn.
//
//	go run . [-round 2s] [-rounds 5] [-callers 64] [-bytes 64] [-only kvstore,grpc]
//
// Server and client are processes of their own. The rounds of all subjects are
// interleaved, so that a disturbance hits all alike; the table shows medians.
// Each round is also printed as a line of JSON. CPU is user and system time of
// both processes; on a shared machine it is the figure to trust.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// subject is one way to carry requests.
type subject struct {
	name  string
	about string
	serve func() (addr string, err error)
	// run makes requests of size bytes until stop is closed and counts the
	// completed ones.
	run func(addr string, callers, size int, count *counter, stop <-chan struct{}) error
}

var subjects = []subject{
	{"kvstore", "Mux over TCP", serveKvstore, runKvstore},
	{"grpc", "grpc-go unary, raw codec", serveGRPC, runGRPC},
	{"batched", "net.Conn, 64 frames per write", serveBatched, runBatched},
	{"single", "net.Conn, one frame per write", serveSingle, runSingle},
}

// result is one round of one subject.
type result struct {
	Subject string  `json:"subject"`
	Round   int     `json:"round"`
	Callers int     `json:"callers"`
	Bytes   int     `json:"bytes"`
	Calls   uint64  `json:"calls"`
	Rate    float64 `json:"calls_per_s"`
	CPU     float64 `json:"cpu_us_per_call"`
	Allocs  float64 `json:"client_allocs_per_call"`
}

type settings struct {
	round          time.Duration
	rounds         int
	callers, bytes int
}

func main() {
	var o settings
	flag.DurationVar(&o.round, "round", 2*time.Second, "length of a round")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds per subject")
	flag.IntVar(&o.callers, "callers", 64, "concurrent callers")
	flag.IntVar(&o.bytes, "bytes", 64, "bytes per request and reply")
	only := flag.String("only", "", "subjects, separated by commas; all if empty")
	serve := flag.String("serve", "", "internal: be the server of this subject")
	client := flag.String("client", "", "internal: be the client of this subject")
	addr := flag.String("addr", "", "internal: the server's address")
	flag.Parse()

	var err error
	switch {
	case *serve != "":
		err = beServer(find(*serve))
	case *client != "":
		err = beClient(find(*client), *addr, o)
	default:
		err = measure(o, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func find(name string) subject {
	i := slices.IndexFunc(subjects, func(s subject) bool { return s.name == name })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "no subject %q\n", name)
		os.Exit(2)
	}
	return subjects[i]
}

// beServer serves until its input ends, and tells its CPU time for each line it
// reads.
func beServer(s subject) error {
	addr, err := s.serve()
	if err != nil {
		return err
	}
	fmt.Println(addr)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(cpuTime().Microseconds())
	}
	return in.Err()
}

// beClient warms up, says so, waits for a line, and measures one round.
func beClient(s subject, addr string, o settings) error {
	count, stop, done := newCounter(o.callers), make(chan struct{}), make(chan error, 1)
	go func() { done <- s.run(addr, o.callers, o.bytes, count, stop) }()
	select {
	case err := <-done:
		return fmt.Errorf("%s ended early: %w", s.name, err)
	case <-time.After(o.round / 4):
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	calls, cpu, allocs, began := count.sum(), cpuTime(), mallocs(), time.Now()
	select {
	case err := <-done:
		return fmt.Errorf("%s ended early: %w", s.name, err)
	case <-time.After(o.round):
	}
	calls, cpu, allocs = count.sum()-calls, cpuTime()-cpu, mallocs()-allocs
	took := time.Since(began)
	if err := json.NewEncoder(os.Stdout).Encode(result{Subject: s.name, Callers: o.callers, Bytes: o.bytes, Calls: calls,
		Rate: float64(calls) / took.Seconds(), CPU: float64(cpu.Microseconds()), Allocs: float64(allocs) / float64(max(calls, 1))}); err != nil {
		return err
	}
	close(stop)
	return <-done
}

// child is a process of ours that we talk to line by line.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, args...)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *child) line() (string, error) {
	s, err := c.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// end closes the input of the child, which ends it, and waits.
func (c *child) end() error {
	c.in.Close()
	return c.cmd.Wait()
}

// usage is the CPU time of a server so far, in microseconds.
func (c *child) usage() (us float64, err error) {
	if _, err := io.WriteString(c.in, "usage\n"); err != nil {
		return 0, err
	}
	s, err := c.line()
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(s, &us)
	return us, err
}

// measure runs the rounds, interleaved, and prints what came out.
func measure(o settings, only string) error {
	results := make(map[string][]result)
	var chosen []subject
	for _, s := range subjects {
		if only == "" || slices.Contains(strings.Split(only, ","), s.name) {
			chosen = append(chosen, s)
		}
	}
	for round := range o.rounds {
		for _, s := range chosen {
			r, err := measureRound(s, o)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			r.Round = round
			results[s.name] = append(results[s.name], r)
			if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
				return err
			}
		}
	}
	return table(os.Stdout, chosen, results)
}

func measureRound(s subject, o settings) (r result, err error) {
	server, err := start("-serve", s.name)
	if err != nil {
		return r, err
	}
	defer server.end()
	addr, err := server.line()
	if err != nil {
		return r, err
	}
	client, err := start("-client", s.name, "-addr", addr, "-round", o.round.String(),
		"-callers", fmt.Sprint(o.callers), "-bytes", fmt.Sprint(o.bytes))
	if err != nil {
		return r, err
	}
	defer client.end()
	if _, err := client.line(); err != nil { // ready
		return r, err
	}
	before, err := server.usage()
	if err != nil {
		return r, err
	}
	if _, err := io.WriteString(client.in, "go\n"); err != nil {
		return r, err
	}
	line, err := client.line()
	if err != nil {
		return r, err
	}
	after, err := server.usage()
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return r, err
	}
	r.CPU = (r.CPU + after - before) / float64(max(r.Calls, 1))
	return r, nil
}

// table prints the medians, and how many times better kvstore is.
func table(w io.Writer, chosen []subject, results map[string][]result) error {
	median := func(rs []result, of func(result) float64) float64 {
		vs := make([]float64, len(rs))
		for i, r := range rs {
			vs[i] = of(r)
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	rate := func(r result) float64 { return r.Rate }
	cpu := func(r result) float64 { return r.CPU }
	ours := results["kvstore"]
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nsubject\tcalls/s\tCPU us/call\tclient allocs/call\tkvstore: rate x\tCPU x\t")
	for _, s := range chosen {
		rs := results[s.name]
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%.1f\t", s.name, median(rs, rate), median(rs, cpu),
			median(rs, func(r result) float64 { return r.Allocs }))
		if len(ours) > 0 {
			fmt.Fprintf(t, "%.2f\t%.2f\t", median(ours, rate)/median(rs, rate), median(rs, cpu)/median(ours, cpu))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range chosen {
		fmt.Fprintf(w, "%8s  %s\n", s.name, s.about)
	}
	return nil
}
