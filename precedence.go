package kvstore

import (
	"context"
	"slices"
	"sync"
	"time"
)

// precedenceTime is how long an Update that was refused precedes those of other
// nodes: enough for its function and a round trip, and hardly felt by the others
// when it does not come back.
const precedenceTime = 100 * time.Millisecond

// A precedence lets nodes update a key one after the other at this one, its first
// owner. A node whose Update was refused, since another one was faster, stands in
// line: the others wait until it is back, for precedenceTime at most. Otherwise
// those with a long way or a slow function would be refused for ever. Where nobody
// is refused there is no line. Only Updates wait: it is a courtesy and no lock.
type precedence struct {
	mu struct {
		sync.Mutex
		lines map[string]*line // by key
	}
}

// A line has one place for each node that updates a key: there are no more than
// members. It is never empty.
type line struct {
	places []*standing
	// timeout takes the first place away from a node that does not come.
	timeout *time.Timer
}

// A standing is the place of a node, which is known by its address; this node is "".
type standing struct {
	node  string
	first chan struct{} // closed when it is the first
}

// await waits until node is the first in line at key, or there is none.
func (p *precedence) await(ctx context.Context, key, node string, deadline time.Time) error {
	p.mu.Lock()
	l := p.mu.lines[key]
	if l == nil {
		p.mu.Unlock()
		return nil
	}
	mine := l.places[l.join(node)]
	p.mu.Unlock()
	timeout := time.NewTimer(deadline.Sub(now()))
	defer timeout.Stop()
	var err error
	select {
	case <-mine.first:
		return nil
	case <-ctx.Done():
		err = contextError(ctx)
	case <-timeout.C:
		err = ErrTimeout
	}
	p.leave(key, node)
	return err
}

// stay gives node, which was refused, the first place at key, or the last one if
// somebody else has that.
func (p *precedence) stay(key, node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.mu.lines[key]
	if l == nil {
		if p.mu.lines == nil {
			p.mu.lines = map[string]*line{}
		}
		l = &line{}
		p.mu.lines[key] = l
	}
	if l.join(node) == 0 {
		p.callLocked(key, l)
	}
}

// leave ends node's place at key, if it has one.
func (p *precedence) leave(key, node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.mu.lines[key]; l != nil {
		if i := l.find(node); i >= 0 {
			p.removeLocked(key, l, i)
		}
	}
}

func (p *precedence) removeLocked(key string, l *line, i int) {
	l.places = slices.Delete(l.places, i, i+1)
	switch {
	case i > 0:
	case len(l.places) > 0:
		p.callLocked(key, l)
	default:
		l.timeout.Stop()
		delete(p.mu.lines, key)
	}
}

// callLocked lets the first in line come, from now on for precedenceTime.
func (p *precedence) callLocked(key string, l *line) {
	first := l.places[0]
	select {
	case <-first.first: // it comes again
	default:
		close(first.first)
	}
	if l.timeout != nil {
		l.timeout.Stop()
	}
	l.timeout = time.AfterFunc(precedenceTime, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.mu.lines[key] == l && l.places[0] == first {
			p.removeLocked(key, l, 0)
		}
	})
}

// join gives the index of node's place, the last one if it had none.
func (l *line) join(node string) int {
	if i := l.find(node); i >= 0 {
		return i
	}
	l.places = append(l.places, &standing{node: node, first: make(chan struct{})})
	return len(l.places) - 1
}

// find gives the index of node's place, or -1.
func (l *line) find(node string) int {
	return slices.IndexFunc(l.places, func(x *standing) bool { return x.node == node })
}
