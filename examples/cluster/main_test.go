package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// asProgram in the environment makes the test binary the program itself.
const asProgram = "KVSTORE_CLUSTER_TEST"

func TestMain(m *testing.M) {
	if _, child := childConfig(); child || os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// A program is the demo, started by a test.
type program struct {
	cmd    *exec.Cmd
	temp   string // its directory for temporary files
	out    *bufio.Scanner
	lines  []string
	errors bytes.Buffer
}

// start runs the headless tour over few, small files.
func start(t *testing.T, args ...string) *program {
	self, err := os.Executable()
	require.NoError(t, err)
	r := &program{temp: t.TempDir()}
	args = append([]string{"-headless", "-files", "200", "-max-file", "16384"}, args...)
	r.cmd = exec.Command(self, args...)
	r.cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+r.temp, "TMP="+r.temp)
	r.cmd.Stderr = &r.errors
	out, err := r.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	t.Cleanup(func() { // should the test have failed
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	r.out = bufio.NewScanner(out)
	return r
}

// until reads what the program prints up to the line of a step.
func (r *program) until(t *testing.T, name string) {
	for r.out.Scan() {
		r.lines = append(r.lines, r.out.Text())
		if strings.HasPrefix(r.out.Text(), name) {
			return
		}
	}
	require.Fail(t, "the program ended before the step "+name, "%s\n%s", strings.Join(r.lines, "\n"), r.errors.String())
}

// exit waits for the end of the program and returns its exit status.
func (r *program) exit() int {
	for r.out.Scan() {
		r.lines = append(r.lines, r.out.Text())
	}
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

var pidText = regexp.MustCompile(`\(pid (\d+)`)

// requireNoProcess waits until every node that the program told of is gone.
func (r *program) requireNoProcess(t *testing.T) {
	found := pidText.FindAllStringSubmatch(strings.Join(r.lines, "\n"), -1)
	require.GreaterOrEqual(t, len(found), minNodes)
	for _, f := range found {
		pid, err := strconv.Atoi(f[1])
		require.NoError(t, err)
		require.Eventually(t, func() bool { return !alive(pid) }, 2*maxClosing, 10*time.Millisecond, "process %d is left", pid)
	}
}

func TestTour(t *testing.T) {
	r := start(t, "-outage", "400ms")
	status := r.exit()
	printed := strings.Join(r.lines, "\n")
	require.Zero(t, status, "%s\n%s", printed, r.errors.String())
	for _, must := range []string{
		"store .* 200 files", "read one .* 200 checksums", "read quorum .* 200 checksums", "read all .* 200 checksums",
		"kill .* 0 errors in", "restart .* n2 ", "converge .* 0 stale keys", "restarted .* 200 keys",
		"acknowledged writes +[1-9]", "lost writes +0 ", "wrong bytes +0 ", "failed requests +0 ",
		"put quorum +[1-9]", "get one +[1-9]", "get quorum +[1-9]", "get all +[1-9]",
	} {
		require.Regexp(t, must, printed)
	}
	r.requireNoProcess(t)
	requireEmpty(t, r.temp)
}

// Ctrl-C in the middle of the load ends everything in good order.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can send another one a Ctrl-C here")
	}
	r := start(t, "-outage", "1m")
	r.until(t, "read all") // the load begins
	require.NoError(t, r.cmd.Process.Signal(os.Interrupt))
	require.Equal(t, exitInterrupted, r.exit())
	r.requireNoProcess(t)
	requireEmpty(t, r.temp)
}

// When the parent is killed nobody is left to end the nodes: they see it
// themselves.
func TestParentKilled(t *testing.T) {
	r := start(t, "-outage", "1m")
	r.until(t, "read all")
	require.NoError(t, r.cmd.Process.Kill())
	require.NotZero(t, r.exit())
	r.requireNoProcess(t)
}

func requireEmpty(t *testing.T, dir string) {
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-nodes", "2"}, {"-nodes", "17"}, {"-callers", "0"}, {"-files", "-1"}, {"-outage", "-1s"}, {"-max-file", "8388608"}, {"extra"}, {"-unknown"},
	} {
		_, err := parse(args, io.Discard)
		require.Error(t, err, args)
	}
	s, err := parse([]string{"-src", "x", "-nodes", "5"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, 5, s.nodes)
	require.Equal(t, "x", s.source)

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/file", []byte("data"), 0o644))
	_, err = newTour(settings{source: dir, maxFile: 100, dir: dir})
	require.ErrorContains(t, err, "not empty")
}
