package gossip

import (
	"math/bits"
	"slices"
)

// News is what the cluster should hear fast: a new member, a new incarnation, a
// changed state or body. It goes out first, newest first and then in turn, and
// each node tells a piece sendsPerDoubling * log2(members) times (Das et al.
// 2002, section 4.1); after that it is a line in the digest like any other.
const sendsPerDoubling = 3

func (g *Gossip) tell(m *member) {
	if m == g.self {
		return // every header tells it
	}
	m.sends = sendsPerDoubling * bits.Len(uint(len(g.sorted)))
	if !m.queued {
		m.queued = true
		g.news = slices.Insert(g.news, 0, m)
	}
}

// appendNews appends news, except about skip, until b reaches limit.
func (g *Gossip) appendNews(b []byte, limit int, skip *member) []byte {
	for range len(g.news) {
		mark := len(b)
		m := g.news[0]
		if m != skip {
			if b = appendEntry(b, m, false); len(b) > limit {
				return b[:mark]
			}
			m.sends--
		}
		g.news = g.news[1:]
		if m.queued = m.sends > 0; m.queued {
			g.news = append(g.news, m)
		}
	}
	return b
}

// appendDigest appends news, up to half of what is left, then the other members
// in turn, so that many digests together show the whole table.
func (g *Gossip) appendDigest(b []byte, limit int, skip *member) []byte {
	b = g.appendNews(b, (len(b)+limit)/2, skip)
	for range len(g.sorted) {
		if g.digestAt >= len(g.sorted) {
			g.digestAt = 0
		}
		mark := len(b)
		if m := g.sorted[g.digestAt]; m != g.self && m != skip && !m.queued {
			if b = appendEntry(b, m, false); len(b) > limit {
				return b[:mark]
			}
		}
		g.digestAt++
	}
	return b
}

// appendMembers appends whole members for one who knows too few, from a random
// place on: the next one asked tells others.
func (g *Gossip) appendMembers(b []byte, limit int) []byte {
	start := g.random.IntN(len(g.sorted))
	for i := range g.sorted {
		m := g.sorted[(start+i)%len(g.sorted)]
		mark := len(b)
		if m.bodyAt > 0 {
			if b = appendEntry(b, m, true); len(b) > limit {
				return b[:mark]
			}
		}
	}
	return b
}
