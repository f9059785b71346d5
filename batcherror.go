package kvstore

import (
	"fmt"
	"sync"
)

// A KeyError is one key's part in a BatchError.
type KeyError struct {
	Index int // in the keys or operations of the call
	Key   string
	Err   error
}

// A BatchError names the keys of a GetMany or an Apply that failed. errors.Is and
// errors.As look at each of their errors.
type BatchError struct {
	// Failed are in the order of the call.
	Failed []KeyError
	// Of is the number of keys or operations of the call.
	Of int

	read bool // of a GetMany
}

// Error tells how many failed, and of the first why.
func (e *BatchError) Error() string {
	f := e.Failed[0]
	return fmt.Sprintf("kvstore: %d of %d keys failed; the first is %q: %v", len(e.Failed), e.Of, f.Key, f.Err)
}

// Unwrap gives the errors of the keys.
func (e *BatchError) Unwrap() []error {
	all := make([]error, len(e.Failed))
	for i, f := range e.Failed {
		all[i] = f.Err
	}
	return all
}

// outcome is NotApplied only if nothing of the whole batch was.
func (e *BatchError) outcome() Outcome {
	if e.read {
		return NotApplied
	}
	if len(e.Failed) < e.Of {
		return Unknown
	}
	for _, f := range e.Failed {
		if OutcomeOf(f.Err) != NotApplied {
			return Unknown
		}
	}
	return NotApplied
}

// failures collects a BatchError.
type failures struct {
	read bool // of a GetMany
	mu   struct {
		sync.Mutex
		errs []error
		keys []string
	}
}

func newFailures(keys []string) *failures {
	f := &failures{}
	f.mu.errs, f.mu.keys = make([]error, len(keys)), keys
	return f
}

func (f *failures) add(i int, err error) {
	f.mu.Lock()
	f.mu.errs[i] = err
	f.mu.Unlock()
}

// copy lets i fail as j did.
func (f *failures) copy(i, j int) {
	f.mu.Lock()
	f.mu.errs[i] = f.mu.errs[j]
	f.mu.Unlock()
}

func (f *failures) len() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, err := range f.mu.errs {
		if err != nil {
			n++
		}
	}
	return n
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := &BatchError{Of: len(f.mu.errs), read: f.read}
	for i, err := range f.mu.errs {
		if err != nil {
			e.Failed = append(e.Failed, KeyError{Index: i, Key: f.mu.keys[i], Err: err})
		}
	}
	if e.Failed == nil {
		return nil
	}
	return e
}
