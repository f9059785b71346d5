package main

import (
	"sync"
	"time"

	"example.com/kvstore/transport"
)

func identity() transport.Identity { return transport.Identity{Name: "bench"} }

func serveKvstore() (string, error) {
	m, err := transport.NewMux(transport.TCP(), transport.MuxConfig{Listen: "127.0.0.1:0", Identity: identity,
		Handle: func(r *transport.Request) { r.Reply(nil, r.Body) }})
	if err != nil {
		return "", err
	}
	return m.Addr(), nil
}

func runKvstore(addr string, callers, size int, count *counter, stop <-chan struct{}) error {
	m, err := transport.NewMux(transport.TCP(), transport.MuxConfig{Identity: identity})
	if err != nil {
		return err
	}
	defer m.Close()
	p := m.Peer(addr)
	var all sync.WaitGroup
	failed := make(chan error, callers)
	for i := range callers {
		all.Go(func() {
			body, done := make([]byte, size), make(waiter, 1)
			for !stopped(stop) {
				if err := p.Call(1, time.Now().Add(10*time.Second), nil, body, done, 0); err != nil {
					failed <- err
					return
				}
				if err := <-done; err != nil {
					failed <- err
					return
				}
				count.add(i, 1)
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

type waiter chan error

func (w waiter) Complete(_ uint64, _ []byte, err error) { w <- err }
