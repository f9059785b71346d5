package main

import (
	"bufio"
	"io"
	"net"
	"sync"
)

// The limits: what the sockets themselves carry, without ids, deadlines or
// callers. One goroutine writes, another one reads.

// perWrite is the number of frames in a batch.
const perWrite = 64

// frameExtra is what a frame has besides its bytes: a length and an id.
const frameExtra = 12

func serveConns(serve func(net.Conn)) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(nc)
		}
	}()
	return ln.Addr().String(), nil
}

// serveBatched sends back what it reads, as it reads it.
func serveBatched() (string, error) {
	return serveConns(func(nc net.Conn) {
		defer nc.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			if _, err := nc.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

// serveSingle sends each frame back with a write of its own. It learns the size
// of the frames from the first byte.
func serveSingle() (string, error) {
	return serveConns(func(nc net.Conn) {
		defer nc.Close()
		in := bufio.NewReaderSize(nc, 64<<10)
		head := make([]byte, 4)
		for {
			if _, err := io.ReadFull(in, head); err != nil {
				return
			}
			size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
			frame := make([]byte, size)
			copy(frame, head)
			for {
				if _, err := io.ReadFull(in, frame[4:]); err != nil {
					return
				}
				if _, err := nc.Write(frame); err != nil {
					return
				}
				if _, err := io.ReadFull(in, frame[:4]); err != nil {
					return
				}
			}
		}
	})
}

func runBatched(addr string, callers, size int, count *counter, stop <-chan struct{}) error {
	// As many frames on their way as callers would have, and one batch more, so
	// that both sides always have something to do.
	return pipeline(addr, perWrite, max(2, callers/perWrite+1), size, count, stop)
}

func runSingle(addr string, callers, size int, count *counter, stop <-chan struct{}) error {
	return pipeline(addr, 1, callers, size, count, stop)
}

// pipeline keeps window writes of n frames each on their way.
func pipeline(addr string, n, window, size int, count *counter, stop <-chan struct{}) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	frame := size + frameExtra
	batch := make([]byte, n*frame)
	for i := 0; i < len(batch); i += frame {
		batch[i], batch[i+1], batch[i+2] = byte(frame), byte(frame>>8), byte(frame>>16)
	}
	room := make(chan struct{}, window) // one per write that is on its way
	var reader sync.WaitGroup
	reader.Go(func() {
		in := bufio.NewReaderSize(nc, 64<<10)
		back := make([]byte, len(batch))
		for {
			if _, err := io.ReadFull(in, back); err != nil {
				return
			}
			count.add(0, uint64(n))
			<-room
		}
	})
	for !stopped(stop) {
		room <- struct{}{}
		if _, err := nc.Write(batch); err != nil {
			return err
		}
	}
	nc.Close()
	reader.Wait()
	return nil
}
