package main

import (
	"sync"
	"sync/atomic"
)

// maxProblems bounds how many errors are kept to be shown; all are counted.
const maxProblems = 10

// A score counts what the promises are about.
type score struct {
	acked, read atomic.Int64 // writes acknowledged; reads answered
	// lost keys did not give their last acknowledged version to a read that had
	// to see it; wrong reads gave bytes that nobody wrote.
	lost, wrong atomic.Int64
	// staleAtOne reads at One gave an older version. They may: a quorum of owners
	// had acknowledged the newer one, and this was another owner.
	staleAtOne atomic.Int64
	// errors are requests that failed, those to a killed service excepted.
	errors atomic.Int64

	mu struct {
		sync.Mutex
		problems []string // the first ones
	}
}

// clean reports whether everything went as promised.
func (s *score) clean() bool {
	return s.lost.Load() == 0 && s.wrong.Load() == 0 && s.errors.Load() == 0
}

// note keeps a problem's text.
func (s *score) note(problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.problems) < maxProblems {
		s.mu.problems = append(s.mu.problems, problem)
	}
}

func (s *score) problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.problems[:len(s.mu.problems):len(s.mu.problems)]
}
