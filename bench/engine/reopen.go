package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// This file measures how soon a store answers after it is opened: one that was
// closed, and one whose process was killed while it wrote as fast as it could.
// The page cache has forgotten the files, so that what opening reads comes from
// the device: the floor's sequential read stands beside it.

// killAfter is how much is written before the kill, in memtables: enough that
// memtables wait to be flushed.
const killAfter = 3

// readyLine is what a writer says when it may be killed.
const readyLine = "ready"

// reopen measures from before opening until the first key was read. The rate is
// that of opening.
func (j job) reopen(p peer) (r result, err error) {
	w := j.Workload
	r = result{Workload: w.Name, Engine: j.Engine, Ops: 1}
	if err := dropPages(j.Dir); err != nil {
		return r, err
	}
	base, _ := resident()
	before, began := snapshot(), time.Now()
	e, err := j.open(p)
	if err != nil {
		return r, err
	}
	r.OpenSeconds = time.Since(began).Seconds()
	v := verifier{e: e, valueBytes: w.ValueBytes}
	err = v.check(w.Keys / 2)
	took, after := time.Since(began), snapshot()
	r.Seconds, r.OpsPerSecond = took.Seconds(), 1/took.Seconds()
	r.CPU, r.DeviceReads = micros(after.cpu-before.cpu), float64(after.read-before.read)
	peak, anonymous := resident()
	r.PeakRSS, r.AnonymousRSS = float64(peak)-float64(base), float64(anonymous)
	began = time.Now()
	err = errors.Join(err, e.close())
	r.CloseSeconds = time.Since(began).Seconds()
	if err == nil && j.Verify {
		err = j.verify(p, driven{})
	}
	return r, err
}

// writeUntilKilled overwrites keys without end, and says when it has written
// enough for the kill.
func (j job) writeUntilKilled(p peer) error {
	e, err := j.open(p)
	if err != nil {
		return err
	}
	w := j.Workload
	enough := killAfter * uint64(j.MemtableBytes) / uint64(keyBytes+w.ValueBytes)
	done := make([]counter, w.Callers)
	go func() {
		for {
			var n uint64
			for i := range done {
				n += done[i].Load()
			}
			if n >= enough {
				fmt.Println(readyLine)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err = drive(e, workload{Updates: 100, Draw: "uniform", ValueBytes: w.ValueBytes, Keys: w.Keys, Callers: w.Callers},
		driveOptions{seed: j.Seed, done: done})
	return errors.Join(err, e.close(), errors.New("a writer that nobody killed"))
}

// kill starts a writer and kills it when it is ready.
func (m *measurement) kill(j job) error {
	j.Write = true
	cmd, err := m.command(j)
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	killErr := cmd.Process.Kill()
	waitErr := cmd.Wait()
	if _, killed := errors.AsType[*exec.ExitError](waitErr); line == readyLine+"\n" && killed {
		return nil
	}
	return fmt.Errorf("writer before the kill: said %q: %w", line, errors.Join(readErr, killErr, waitErr))
}
