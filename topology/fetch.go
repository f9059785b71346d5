package topology

import "time"

// A fetch asks one peer for epochs that this node lacks.
type fetch struct {
	addr  string
	epoch uint64 // what the peer knows; 0: nothing to fetch
	tries int
	again time.Time
}

// hear notes that the peer at addr knows that epoch.
func (a *Agent) hear(addr string, epoch uint64) {
	if cur := a.Current(); cur == nil || epoch <= cur.Number || epoch <= a.fetch.epoch {
		return
	}
	a.fetch = fetch{addr: addr, epoch: epoch}
	a.tickFetch()
}

func (a *Agent) tickFetch() {
	f := &a.fetch
	if f.epoch == 0 || a.now.Before(f.again) {
		return
	}
	if f.epoch <= a.Current().Number || f.tries == fetchTries {
		*f = fetch{}
		return
	}
	a.send(f.addr, &message{kind: kindFetch, slot: a.Current().Number})
	f.again = a.now.Add(a.backoff(f.tries))
	f.tries++
}

// sendChain sends the epochs after since, or as many as fit; the receiver asks for more.
func (a *Agent) sendChain(addr string, since uint64) {
	m := &message{kind: kindChain}
	size := 0
	for _, e := range a.Chain(since) {
		b, _ := e.AppendBinary(nil)
		if size += len(b); size > chainBytes && len(m.epochs) > 0 {
			break
		}
		m.epochs = append(m.epochs, b)
	}
	if len(m.epochs) > 0 {
		a.send(addr, m)
	}
}

// learnChain learns the epochs that continue the chain, and asks for what is still missing.
func (a *Agent) learnChain(m *message) {
	before := a.Current().Number
	for _, b := range m.epochs {
		e, err := a.child(b)
		if err == nil {
			a.learn(e)
		}
	}
	if a.Current().Number > before || len(m.epochs) == 0 {
		a.fetch = fetch{}
	}
	a.hear(m.from.Addr, m.epoch)
}
