package ring

import (
	"math"
	"slices"
)

// balance moves replicas until every node holds its share, give or take one.
//
// It is a minimum-cost flow, solved by successive shortest paths (Ahuja, Magnanti,
// Orlin: Network Flows, section 9.7), many equally short ones at a time. A path
// x -> y -> z hands one partition of x to y and another of y to z. A step costs what
// y's replica would cost less what x's did; one that a node held before costs
// nothing, so a step may be negative: it undoes an earlier one.
//
// No placement that meets the rounded shares needs fewer moves, and one step further
// off is left alone where only a move to an old node would help. After fill each row
// costs the least it can, whatever the loads; so no cycle of steps has a negative cost,
// and shortest paths keep it so. A solution exists because the shares themselves are a
// fractional one and the bounds are nested (node, zone, data centre), for which a flow
// can be made integral.
func (l *layout) balance() {
	l.fill()
	f := &flow{layout: l, dist: make([]int64, len(l.nodes)), next: make([]int, len(l.nodes)), cands: make([][]int32, len(l.domains.dc))}
	held := func(x int32) int { return len(l.held[x]) }
	// To new nodes, and for what has to move anyway, until shares are met when rounded.
	f.run(moveCost, func(x int32) bool { return held(x) > l.hi[x] }, func(x int32) bool { return held(x) < l.hi[x] })
	f.run(moveCost, func(x int32) bool { return held(x) > l.lo[x] }, func(x int32) bool { return held(x) < l.lo[x] })
	// To old nodes only for what is off by more than 1.
	most := func(x int32) int { return int(math.Floor(l.share[x] + 1 + roundingSlip)) }
	least := func(x int32) int { return int(math.Ceil(l.share[x] - 1 - roundingSlip)) }
	f.run(unreached, func(x int32) bool { return held(x) > most(x) }, func(x int32) bool { return held(x) < l.hi[x] })
	f.run(unreached, func(x int32) bool { return held(x) > l.lo[x] }, func(x int32) bool { return held(x) < least(x) })
}

type flow struct {
	*layout
	gives, takes func(x int32) bool // may end with one replica less, more
	dist         []int64            // cost of the cheapest path from a giver, in units with room for its length
	goal         int64              // dist of the nearest taker
	layer        []int32            // nodes that a path may visit
	next         []int              // per node, the first of its partitions not yet tried
	cands        [][]int32          // scratch: nodes that may come nearer, by zone
}

// run moves replicas from nodes that give to nodes that take, as long as none costs
// more than limit.
func (f *flow) run(limit int64, gives, takes func(x int32) bool) {
	f.gives, f.takes = gives, takes
	for f.search() && f.goal/hopsPerUnit <= limit {
		moved := false
		for x := range int32(len(f.nodes)) {
			for f.dist[x] == 0 && f.gives(x) && f.push(x) {
				moved = true
			}
		}
		if !moved {
			panic("ring: a shortest path cannot be walked")
		}
	}
}

// search computes dist by label correction. It reports whether a taker is reachable.
func (f *flow) search() bool {
	var queue []int32
	queued := make([]bool, len(f.nodes))
	for i := range f.dist {
		f.dist[i], f.next[i] = unreached, 0
		if f.gives(int32(i)) {
			f.dist[i] = 0
			queue = append(queue, int32(i))
			queued[i] = true
		}
	}
	for len(queue) > 0 {
		x := queue[0]
		queue = queue[1:]
		queued[x] = false
		f.relax(x, func(y int32, dist int64) {
			f.dist[y] = dist
			if !queued[y] {
				queued[y] = true
				queue = append(queue, y)
			}
		})
	}
	f.goal = unreached
	for i, d := range f.dist {
		if d < f.goal && f.nodes[i].Weight > 0 && f.takes(int32(i)) {
			f.goal = d
		}
	}
	if f.goal == unreached {
		return false
	}
	f.layer = f.layer[:0]
	for i, d := range f.dist {
		if d < unreached { // further away than goal, too: steps may be negative
			f.layer = append(f.layer, int32(i))
		}
	}
	return true
}

// step is the length of the step that costs cost.
func step(cost int64) int64 { return cost*hopsPerUnit + costPerHop }

// relax calls nearer for each node that a step from x brings nearer.
func (f *flow) relax(x int32, nearer func(y int32, dist int64)) {
	// Steps back: y held the partition before.
	for _, p := range f.held[x] {
		for _, y := range f.old(int(p)) {
			if y < 0 {
				continue
			}
			if d := f.dist[x] + step(-f.cost(int(p), x)); d < f.dist[y] && f.allows(int(p), x, y) {
				nearer(y, d)
			}
		}
	}
	// Steps ahead, from partitions that are new to x and from those that are not.
	for _, loss := range [...]int64{f.gain[x], 0} {
		left := 0
		for z := range f.cands {
			f.cands[z] = f.cands[z][:0]
		}
		for i, n := range f.nodes {
			y := int32(i)
			if n.Weight > 0 && y != x && f.dist[x]+step(f.gain[y]-loss) < f.dist[y] {
				z := f.domains.zone[y]
				f.cands[z] = append(f.cands[z], y)
				left++
			}
		}
		for _, p := range f.held[x] {
			if left == 0 {
				break
			}
			if f.cost(int(p), x) != loss {
				continue
			}
			row := f.row(int(p))
			for z, c := range f.cands {
				if len(c) == 0 || !f.domains.swaps(row, x, int32(z)) {
					continue
				}
				rest := c[:0]
				for _, y := range c {
					if slices.Contains(row, y) {
						rest = append(rest, y)
						continue
					}
					nearer(y, f.dist[x]+step(f.gain[y]-loss))
					left--
				}
				f.cands[z] = rest
			}
		}
	}
}

// allows reports whether x may hand p to y.
func (f *flow) allows(p int, x, y int32) bool {
	row := f.row(p)
	return !slices.Contains(row, y) && f.domains.swaps(row, x, f.domains.zone[y])
}

// push moves one replica along a shortest path from x to a taker. A partition that
// leads nowhere is not tried again before the next search.
//
// The steps of one path do not disturb each other: two of them inside one partition
// that did could be replaced by one, and the path would be shorter.
func (f *flow) push(x int32) bool {
	if f.dist[x] == f.goal && f.takes(x) {
		return true
	}
	for ; f.next[x] < len(f.held[x]); f.next[x]++ {
		p := int(f.held[x][f.next[x]])
		loss := f.cost(p, x)
		for _, y := range f.layer {
			ahead := f.dist[y] - f.dist[x]
			if ahead != step(f.gain[y]-loss) && ahead != step(-loss) {
				continue
			}
			if ahead == step(f.cost(p, y)-loss) && f.allows(p, x, y) && f.push(y) {
				f.hand(p, x, y)
				return true
			}
		}
	}
	return false
}

// hand replaces x, at its partition next[x], by y.
func (f *flow) hand(p int, x, y int32) {
	row := f.row(p)
	row[slices.Index(row, x)] = y
	h := f.held[x]
	h[f.next[x]] = h[len(h)-1]
	f.held[x] = h[:len(h)-1]
	f.held[y] = append(f.held[y], int32(p))
}
