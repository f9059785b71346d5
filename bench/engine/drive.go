package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// driveOptions are what a workload does not say itself.
type driveOptions struct {
	seed     uint64
	zipf     *zipf
	verify   bool      // compare every value
	inserted []uint64  // by each caller before
	done     []counter // nil, or where each caller counts its operations
}

// driven is what the callers did.
type driven struct {
	tally     tally
	took      time.Duration
	userBytes uint64   // of keys and values that were put
	inserted  []uint64 // by each caller, since the data set was loaded
	filled    uint64   // a fill has put all keys below
}

// fillChunk is how many keys a caller of a fill takes at once. It puts them all
// before it stops, so that a fill has put all keys below some number.
const fillChunk = 8

// A caller does one operation at a time.
type caller struct {
	e engine
	w workload
	keyspace
	key, value, got, scratch []byte
	verify                   bool
	put                      uint64         // writes
	chunk, chunkEnd          uint64         // of a fill
	taken                    *atomic.Uint64 // by all callers of a fill
	tally                    tally
	failure                  error
}

// drive runs a workload with all its callers and waits for them. The first wrong
// answer of the engine ends it.
func drive(e engine, w workload, o driveOptions) (driven, error) {
	var taken atomic.Uint64
	callers := make([]*caller, w.Callers)
	for i := range callers {
		c := &caller{e: e, w: w, verify: o.verify, taken: &taken, key: make([]byte, keyBytes), value: make([]byte, w.ValueBytes),
			got: make([]byte, 0, w.ValueBytes), scratch: make([]byte, w.ValueBytes),
			keyspace: keyspace{draw: w.Draw, rng: rand.New(rand.NewPCG(uint64(i), o.seed)), zipf: o.zipf,
				keys: w.Keys, caller: uint64(i), callers: uint64(w.Callers)}}
		if o.inserted != nil {
			c.inserted = o.inserted[i]
		}
		callers[i] = c
	}
	var wg sync.WaitGroup
	var failed atomic.Bool
	start := time.Now()
	for i, c := range callers {
		wg.Go(func() {
			var n uint64
			quota := (w.Ops + uint64(w.Callers) - 1) / uint64(w.Callers)
			if w.Fill {
				quota = 0 // shared, see step
			}
			for began := time.Duration(0); !failed.Load() && (quota == 0 || n < quota); {
				more, err := c.step()
				if err != nil {
					c.failure = err
					failed.Store(true)
				}
				if err != nil || !more {
					return
				}
				ended := time.Since(start)
				c.tally.add(ended - began)
				began = ended
				n++
				if o.done != nil {
					o.done[i].Store(n)
				}
				if w.Time > 0 && ended >= w.Time && c.chunk == c.chunkEnd {
					return
				}
			}
		})
	}
	wg.Wait()
	d := driven{took: time.Since(start), filled: taken.Load()}
	if w.Ops > 0 {
		d.filled = min(d.filled, w.Ops)
	}
	for _, c := range callers {
		d.tally.merge(&c.tally)
		d.userBytes += c.put * uint64(keyBytes+w.ValueBytes)
		d.inserted = append(d.inserted, c.inserted)
	}
	for _, c := range callers {
		if c.failure != nil {
			return d, c.failure
		}
	}
	return d, nil
}

// step does one operation. It gives false when a fill has no more keys.
func (c *caller) step() (bool, error) {
	if c.w.Fill {
		if c.chunk == c.chunkEnd {
			c.chunkEnd = c.taken.Add(fillChunk)
			c.chunk = c.chunkEnd - fillChunk
		}
		number := c.chunk
		if c.w.Ops > 0 && number >= c.w.Ops {
			return false, nil
		}
		c.chunk++
		return true, c.write(number, 0)
	}
	die := c.rng.IntN(100)
	if die -= c.w.Reads; die < 0 {
		return true, c.read(c.next())
	}
	if die -= c.w.Updates; die < 0 {
		return true, c.write(c.next(), c.rng.Uint64())
	}
	if die -= c.w.Inserts; die < 0 {
		return true, c.write(c.insert(), 0)
	}
	if die -= c.w.Scans; die < 0 {
		return true, c.scan(c.next(), 1+c.rng.IntN(maxScan))
	}
	number := c.next()
	if err := c.read(number); err != nil {
		return false, err
	}
	return true, c.write(number, c.rng.Uint64())
}

func (c *caller) write(number, seed uint64) error {
	putKey(c.key, number)
	putValue(c.value, number, seed)
	c.put++
	return c.e.put(c.key, c.value)
}

func (c *caller) read(number uint64) (err error) {
	putKey(c.key, number)
	var found bool
	c.got, found, err = c.e.get(c.got[:0], c.key)
	switch {
	case err != nil:
		return err
	case found != (number < absentKeys):
		return fmt.Errorf("key %d (%s): found is %v", number, c.key, found)
	case c.verify && found && !validValue(c.got, number, c.w.ValueBytes, c.scratch):
		return fmt.Errorf("key %d (%s) has a wrong value of %d bytes", number, c.key, len(c.got))
	}
	return nil
}

func (c *caller) scan(from uint64, n int) error {
	s, ok := c.e.(scanner)
	if !ok {
		return errNoScan
	}
	putKey(c.key, from)
	seen, wrong := 0, false
	c.got = c.got[:0]
	err := s.scan(c.key, n, func(key, value []byte) {
		seen++
		wrong = wrong || string(key) < string(c.key) || string(key) <= string(c.got) || len(value) != c.w.ValueBytes
		c.got = append(c.got[:0], key...)
	})
	if err == nil && (seen == 0 || seen > n || wrong) {
		err = fmt.Errorf("scan of %d keys from %s: saw %d, the last is %s", n, c.key, seen, c.got)
	}
	return err
}

// A verifier reads single keys that must be there.
type verifier struct {
	e                 engine
	valueBytes        int
	key, got, scratch []byte
}

func (v *verifier) check(number uint64) (err error) {
	if v.key == nil {
		v.key, v.scratch = make([]byte, keyBytes), make([]byte, v.valueBytes)
	}
	putKey(v.key, number)
	var found bool
	v.got, found, err = v.e.get(v.got[:0], v.key)
	if err != nil {
		return err
	}
	if !found || !validValue(v.got, number, v.valueBytes, v.scratch) {
		return fmt.Errorf("after opening again key %d (%s): found is %v, %d bytes", number, v.key, found, len(v.got))
	}
	return nil
}
