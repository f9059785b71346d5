package transport

import (
	"fmt"
	"strings"
)

// Metrics counts what an endpoint and a Mux did since they were opened.
type Metrics struct {
	Open      int    // connections
	Writes    uint64 // system calls that wrote; each carried several frames, if all is well
	Reads     uint64 // and that read
	FramesOut uint64
	FramesIn  uint64
	BytesOut  uint64
	BytesIn   uint64
	Refused   uint64 // handshakes that failed, on connections that others dialed

	Dials     uint64
	Lost      uint64 // dialed connections that ended
	Busy      uint64 // ErrBusy
	Expired   uint64 // calls that ended with ErrDeadline
	Late      uint64 // replies that came after that
	Malformed uint64 // messages that broke the protocol
}

// Metrics gives a snapshot.
func (m *Mux) Metrics() Metrics {
	var s Metrics
	if e, ok := m.ep.(interface{ Metrics() Metrics }); ok {
		s = e.Metrics()
	}
	c := &m.count
	s.Dials, s.Lost, s.Busy = c.dials.Load(), c.lost.Load(), c.busy.Load()
	s.Expired, s.Late, s.Malformed = c.expired.Load(), c.late.Load(), c.malformed.Load()
	return s
}

// String gives the counts as a table.
func (s Metrics) String() string {
	var b strings.Builder
	perWrite, perRead := 0.0, 0.0
	if s.Writes > 0 {
		perWrite = float64(s.FramesOut) / float64(s.Writes)
	}
	if s.Reads > 0 {
		perRead = float64(s.FramesIn) / float64(s.Reads)
	}
	fmt.Fprintf(&b, "transport  %8s %12s %12s %12s %10s\n", "open", "calls", "frames", "bytes", "per call")
	fmt.Fprintf(&b, "  written  %8d %12d %12d %12d %10.1f\n", s.Open, s.Writes, s.FramesOut, s.BytesOut, perWrite)
	fmt.Fprintf(&b, "  read     %8s %12d %12d %12d %10.1f\n", "", s.Reads, s.FramesIn, s.BytesIn, perRead)
	fmt.Fprintf(&b, "  dialed %d, lost %d, refused %d, busy %d, expired %d, late %d, malformed %d\n",
		s.Dials, s.Lost, s.Refused, s.Busy, s.Expired, s.Late, s.Malformed)
	return b.String()
}
