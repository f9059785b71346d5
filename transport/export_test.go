package transport

// For the tests in package transport_test, which need transporttest.

const (
	SweepInterval = sweepInterval
	MaxPause      = maxPause
	RaceEnabled   = raceEnabled
)

// Held gives the bytes that a peer's connection holds for writing.
func (p *Peer) Held() int {
	l := p.link.Load()
	if l == nil {
		return 0
	}
	o := l.c.(*streamConn).out
	o.mu.Lock()
	defer o.mu.Unlock()
	return cap(o.mu.buf) + cap(o.mu.spare) + o.mu.flight
}
