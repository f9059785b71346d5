package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestSubjects lets each subject carry something, both ends in this process.
func TestSubjects(t *testing.T) {
	for _, s := range subjects {
		addr, err := s.serve()
		if err != nil {
			t.Fatal(err)
		}
		count, stop, done := newCounter(4), make(chan struct{}), make(chan error, 1)
		go func() { done <- s.run(addr, 4, 100, count, stop) }()
		for count.sum() < 100 {
			select {
			case err := <-done:
				t.Fatalf("%s: %v", s.name, err)
			case <-time.After(time.Millisecond):
			}
		}
		close(stop)
		if err := <-done; err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

func TestTable(t *testing.T) {
	rounds := func(rate, cpu float64) []result {
		return []result{{Rate: rate, CPU: cpu}, {Rate: rate / 100, CPU: cpu}, {Rate: rate * 100, CPU: cpu}}
	}
	var b bytes.Buffer
	if err := table(&b, subjects[:2], map[string][]result{"kvstore": rounds(1000, 2), "grpc": rounds(100, 15)}); err != nil {
		t.Fatal(err)
	}
	if line := strings.Fields(strings.Split(b.String(), "\n")[3]); strings.Join(line, " ") != "grpc 100 15.00 0.0 10.00 7.50" {
		t.Errorf("%q", line)
	}
}
