package transport

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Request is a call, or a one-way message, from another node. It is reused when
// the handler returns: copy what outlives that, the Responder included.
type Request struct {
	Op       uint8
	Body     []byte    // dies with the handler's return
	Deadline time.Time // zero for a one-way message
	From     Identity
	Responder
}

// Responder answers one call, at any time, from any goroutine, once. It is a
// small value to be copied. For a one-way message it does nothing.
type Responder struct {
	m  *Mux
	c  Conn
	id uint64
}

// Reply answers with head+body, copied before it returns. Replies given in the
// connection's reader leave when its batch ends, others with the writer. When
// the caller does not read its replies, so that Limits.QueueBytes wait, the
// connection is closed.
func (r Responder) Reply(head, body []byte) {
	if r.c == nil {
		return
	}
	s := newScratch()
	s.b = append(appendReply(s.b, r.id), head...)
	err := r.c.Send(s.b, body)
	s.free()
	r.sent(err)
}

// Fail answers with a *RemoteError. Text is cut at 1 KiB.
func (r Responder) Fail(code uint8, text string) {
	if r.c == nil {
		return
	}
	s := newScratch()
	s.b = appendFail(s.b, r.id, code, text)
	err := r.c.Send(s.b, nil)
	s.free()
	r.sent(err)
}

func (r Responder) sent(err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrTooLarge):
		r.Fail(CodeTooLarge, "the reply exceeds the largest frame")
	case errors.Is(err, ErrBusy):
		r.m.count.busy.Add(1)
		r.c.Close()
	}
}

// Flusher collects replies to many connections and lets each connection's leave
// together: for a goroutine that completes requests in groups. The zero value
// is ready. It belongs to one goroutine.
type Flusher struct{ touched []Conn }

// Reply queues the reply head+body, copied before it returns, until Flush.
func (f *Flusher) Reply(r Responder, head, body []byte) {
	if r.c == nil {
		return
	}
	s := newScratch()
	s.b = append(appendReply(s.b, r.id), head...)
	err := r.c.Queue(s.b, body)
	s.free()
	r.sent(err)
	if !slices.Contains(f.touched, r.c) { // a handful: replicas have few peers at a time
		f.touched = append(f.touched, r.c)
	}
}

// Flush writes what each connection has, once, as far as it goes without
// blocking. A connection's writer goroutine does the rest.
func (f *Flusher) Flush() {
	for i, c := range f.touched {
		c.Flush()
		f.touched[i] = nil
	}
	f.touched = f.touched[:0]
}

// inbound handles the requests of one accepted connection.
type inbound struct {
	m     *Mux
	req   Request
	batch time.Time // when the running batch began; zero between batches
	calls window
}

func (in *inbound) Opened(c Conn) {
	in.req.From = c.Remote()
	in.m.arrived(c)
}

func (in *inbound) Receive(c Conn, msg []byte) {
	m, err := decodeMessage(msg)
	if err != nil || m.kind != kindCall && m.kind != kindOneWay || in.m.cfg.Handle == nil {
		in.m.count.malformed.Add(1)
		c.Close()
		return
	}
	if m.kind == kindCall && !in.calls.first(m.id) {
		return // a copy of one that is or was under way
	}
	r := &in.req
	r.Op, r.Body = m.op, m.body
	if m.kind == kindOneWay {
		r.Deadline, r.Responder = time.Time{}, Responder{}
	} else {
		if in.batch.IsZero() {
			in.batch = now()
		}
		r.Deadline = in.batch.Add(m.remaining)
		r.Responder = Responder{m: in.m, c: c, id: m.id}
	}
	in.m.cfg.Handle(r)
	r.Body = nil
}

func (in *inbound) BatchEnd(c Conn) {
	in.batch = time.Time{}
	c.Flush() // for transports that wait to be told
}

func (in *inbound) Closed(c Conn, _ error) { in.m.departed(c) }

// scratch holds the header and the head of one message on its way into a
// connection's buffer.
type scratch struct{ b []byte }

// maxScratch is the largest buffer that is kept for the next message.
const maxScratch = 64 << 10

var scratches = sync.Pool{New: func() any { return &scratch{b: make([]byte, 0, 256)} }}

func newScratch() *scratch { return scratches.Get().(*scratch) }

func (s *scratch) free() {
	if cap(s.b) <= maxScratch {
		s.b = s.b[:0]
		scratches.Put(s)
	}
}
