package lsm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// killDir names the directory in which the process is to write until it is
	// killed.
	killDir     = "LSM_TEST_WRITE_UNTIL_KILLED"
	killWriters = 4
	killSlots   = 40 // keys of each writer
)

// killStep is the n-th write of a writer: to a key of its own, or a delete of it.
func killStep(writer, n int) (key, value []byte) {
	key = fmt.Appendf(nil, "writer %d slot %d", writer, n%killSlots)
	if n%7 == 0 {
		return key, nil
	}
	value = fmt.Appendf(nil, "%d ", n)
	return key, append(value, bytes.Repeat(value, n%150)...)
}

func killOptions() *Options {
	return &Options{MemtableBytes: minMemtableBytes, Slices: 2, Shards: 4}
}

// writeUntilKilled is the child: it goes on where each writer was, and prints
// what was acknowledged.
func writeUntilKilled(dir string) error {
	var next [killWriters]int
	if _, err := fmt.Sscan(os.Getenv(killDir+"_FROM"), &next[0], &next[1], &next[2], &next[3]); err != nil {
		return err
	}
	tree, err := Open(dir, killOptions())
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	failed := make(chan error, killWriters)
	for w, n := range next {
		wg.Go(func() {
			for ; ; n++ {
				key, value := killStep(w, n)
				var err error
				if value == nil {
					err = tree.Delete(key)
				} else {
					err = tree.Put(key, value)
				}
				if err == nil {
					_, err = fmt.Fprintf(os.Stdout, "%d %d\n", w, n)
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	return <-failed
}

// TestKill kills a process that writes to a real disk, again and again. Whatever
// it said was acknowledged is there, and nothing else but the writes under way.
func TestKill(t *testing.T) {
	cycles := sized(1000, 12, 4)
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	var acked [killWriters]int // the last write that was acknowledged
	acks, landed := 0, 0
	for cycle := range cycles {
		n := killOnce(t, dir, r, &acked)
		acks += n
		tree, err := Open(dir, killOptions())
		require.NoError(t, err, "cycle %d", cycle)
		for w := range acked {
			if killCheck(t, tree, w, acked[w]+1) == nil {
				acked[w]++ // the write under way has landed
				landed++
			} else {
				require.NoError(t, killCheck(t, tree, w, acked[w]), "cycle %d", cycle)
			}
		}
		require.NoError(t, tree.Close())
	}
	report, err := Check(dir)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.Positive(t, acks)
	t.Logf("%d kills, %d acknowledged writes, 0 lost, %d that were under way are there; then %v", cycles, acks, landed, report)
}

// killCheck compares all keys of a writer with its first n writes.
func killCheck(t *testing.T, tree *Tree, w, n int) error {
	for i := max(1, n-killSlots+1); i <= n; i++ {
		key, want := killStep(w, i)
		got, ok, err := tree.Get(key)
		require.NoError(t, err)
		if ok != (want != nil) || !bytes.Equal(got, want) {
			return fmt.Errorf("after %d writes %q holds %.20q (%v), want %.20q", n, key, got, ok, want)
		}
	}
	return nil
}

// killOnce starts the child, kills it at a random time, and notes what it
// acknowledged until then.
func killOnce(t *testing.T, dir string, r *rand.Rand, acked *[killWriters]int) int {
	cmd := exec.Command(os.Args[0])
	from := fmt.Sprintln(acked[0]+1, acked[1]+1, acked[2]+1, acked[3]+1)
	cmd.Env = append(os.Environ(), killDir+"="+dir, killDir+"_FROM="+from)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	// Some die early, in Open; the others after so many writes.
	enough := r.IntN(600)
	if r.IntN(4) == 0 {
		enough = 1 << 30
		defer time.AfterFunc(time.Duration(r.IntN(int(60*time.Millisecond))), func() { cmd.Process.Kill() }).Stop()
	}
	acks := 0
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a write that the kill cut short was not said to be acknowledged
		}
		require.NoError(t, err)
		var w, n int
		_, err = fmt.Sscan(line, &w, &n)
		require.NoError(t, err)
		require.Equal(t, acked[w]+1, n)
		acked[w] = n
		if acks++; acks >= enough {
			require.NoError(t, cmd.Process.Kill())
			enough = 1 << 30
		}
	}
	require.Error(t, cmd.Wait())
	require.Empty(t, stderr.String())
	return acks
}
