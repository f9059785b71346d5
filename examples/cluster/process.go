package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"time"
)

// errPortTaken: another process has the node's port.
var errPortTaken = errors.New("the port is taken")

// A process is one run of a child.
type process struct {
	cmd    *exec.Cmd
	in     io.Closer // closing it asks the child to end
	api    string    // address of its HTTP API
	killed atomic.Bool
	exited chan struct{} // closed when the child is gone and err is set
	err    error
}

// startProcess starts a child with the configuration and waits for its greeting.
// What the child logs is appended to the file named log.
func startProcess(ctx context.Context, c nodeConfig, log string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close() // the child has its own handle
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), configVariable+"="+string(config))
	cmd.Stderr = logFile
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, in: in, exited: make(chan struct{})}
	giveUp := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	var hello greeting
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	giveUp()
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("it did not start: %w", err)
	case hello.Taken:
		err = fmt.Errorf("%w: %s", errPortTaken, hello.Error)
	case hello.Error != "":
		err = errors.New(hello.Error)
	}
	if err != nil {
		p.kill()
		return nil, err
	}
	p.api = hello.API
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the child with SIGKILL: it has no chance to do anything about it.
func (p *process) kill() {
	p.killed.Store(true) // first, so that whoever sees its effects knows the cause
	_ = p.cmd.Process.Kill()
	<-p.exited
	_ = p.in.Close()
}

// stop asks the child to end, and waits for it.
func (p *process) stop() error {
	if p.killed.Load() {
		return nil
	}
	_ = p.in.Close()
	// The child has a limit of its own; this one is for a child that is stuck.
	stuck := time.AfterFunc(2*maxClosing, func() { _ = p.cmd.Process.Kill() })
	defer stuck.Stop()
	<-p.exited
	return p.err
}
