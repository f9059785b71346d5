package main

import "time"

// sampleEvery is the length of the stretches whose rates are compared.
const sampleEvery = 500 * time.Millisecond

// A sampler looks at a running measurement every half second. Its fields may be
// read after stop.
type sampler struct {
	dir       string
	logs      []string
	rates     []float64 // ops/s of each full half second
	worst     uint64    // bytes of tables
	anonymous uint64    // bytes of memory
	done      []counter
	quit      chan struct{} // closed by stop
	ended     chan struct{} // closed by the loop
}

func startSampler(dir string, logs []string) *sampler {
	return &sampler{dir: dir, logs: logs, quit: make(chan struct{}), ended: make(chan struct{})}
}

// watch begins the samples of what counts its operations in done.
func (s *sampler) watch(done []counter) {
	s.done = done
	go s.loop()
}

func (s *sampler) loop() {
	defer close(s.ended)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	var last uint64
	for at := time.Now(); ; {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		var ops uint64
		for i := range s.done {
			ops += s.done[i].Load()
		}
		now := time.Now()
		s.rates = append(s.rates, float64(ops-last)/now.Sub(at).Seconds())
		last, at = ops, now
		s.disk()
	}
}

func (s *sampler) stop() {
	close(s.quit)
	<-s.ended
	s.disk()
}

// disk notes the space that is taken up, and gives all of it.
func (s *sampler) disk() uint64 {
	all, tables := diskBytes(s.dir, s.logs)
	s.note(tables)
	return all
}

func (s *sampler) note(tables uint64) {
	s.worst = max(s.worst, tables)
	_, anonymous := resident()
	s.anonymous = max(s.anonymous, anonymous)
}
