package ring

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// A layout is a placement in the making.
type layout struct {
	q, r    int
	nodes   []Node
	domains *domains
	share   []float64 // replicas each node should hold
	lo, hi  []int     // share, rounded down and up

	own  []int32   // q rows of r owners; filled from the left
	used []int     // filled places of each row
	held [][]int32 // partitions of each node

	before []int32 // rows of old owners, -1 for nodes that are gone
	width  int     // of a row of before
	gain   []int64 // cost of a replica the node did not hold before
}

// Cost of moving one replica. Moves to nodes that are not new cost a trifle more,
// so that of two equally short ways the one that leaves old nodes alone is taken.
const (
	moveCost     = 1 << 22
	moveCostOld  = moveCost + 1
	costPerHop   = 1
	hopsPerUnit  = 1 << 13 // more than any path is long
	unreached    = math.MaxInt64
	roundingSlip = 1e-6
)

// newLayout starts from the owners that old had, or from nothing.
func newLayout(r *Ring, old *Ring) *layout {
	q := len(r.changed)
	l := &layout{
		q: q, r: r.r, nodes: r.nodes,
		domains: newDomains(r.nodes, r.zone, r.r),
		own:     make([]int32, q*r.r),
		used:    make([]int, q),
		held:    make([][]int32, len(r.nodes)),
		gain:    make([]int64, len(r.nodes)),
	}
	l.share = l.domains.shares(r.nodes, q, r.r)
	for i, s := range l.share {
		l.lo = append(l.lo, int(math.Floor(s+roundingSlip)))
		l.hi = append(l.hi, int(math.Ceil(s-roundingSlip)))
		l.gain[i] = moveCost
	}
	if old != nil {
		l.keep(r, old)
	}
	l.round()
	return l
}

// keep takes over from old what the nodes and their domains still permit.
func (l *layout) keep(r, old *Ring) {
	index := make([]int32, len(old.nodes))
	for i, n := range old.nodes {
		index[i] = int32(r.Index(n.ID))
		if x := index[i]; x >= 0 {
			if n.Weight > 0 {
				l.gain[x] = moveCostOld
			}
			if r.nodes[x].Weight == 0 {
				index[i] = -1
			}
		}
	}
	l.width = old.r
	l.before = make([]int32, len(old.owners))
	for i, x := range old.owners {
		l.before[i] = index[x]
	}
	for p := range l.q {
		for _, x := range l.old(p) {
			if x >= 0 && l.domains.fits(l.row(p), l.domains.zone[x], l.r) {
				l.add(p, x)
			}
		}
	}
}

// round fixes how the shares are rounded in zones that hold all they may, or no more
// than they must: there the loads have to add up to just that, or the next node to join
// would find replicas on the wrong side. Nodes that have more keep it,
// then new ones come first.
func (l *layout) round() {
	d := l.domains
	for z := range d.dc {
		sum, floor := 0.0, 0
		var open []int32
		for x, n := range l.nodes {
			if n.Weight == 0 || d.zone[x] != int32(z) {
				continue
			}
			sum += l.share[x]
			floor += l.lo[x]
			if l.hi[x] > l.lo[x] {
				open = append(open, int32(x))
			}
		}
		least, most := float64(l.q*d.zoneLo[z]), float64(l.q*d.zoneHi[z])
		if least == most || sum > least+roundingSlip && sum < most-roundingSlip {
			continue
		}
		slices.SortStableFunc(open, func(x, y int32) int {
			return cmp.Or(cmp.Compare(len(l.held[y])-l.lo[y], len(l.held[x])-l.lo[x]), cmp.Compare(l.gain[x], l.gain[y]))
		})
		for i, x := range open {
			if i < int(math.Round(sum))-floor {
				l.lo[x] = l.hi[x]
			} else {
				l.hi[x] = l.lo[x]
			}
		}
	}
}

// row returns the owners of p so far.
func (l *layout) row(p int) []int32 { return l.own[p*l.r : p*l.r+l.used[p]] }

// old returns the owners p had before.
func (l *layout) old(p int) []int32 { return l.before[p*l.width : (p+1)*l.width] }

func (l *layout) add(p int, x int32) {
	l.own[p*l.r+l.used[p]] = x
	l.used[p]++
	l.held[x] = append(l.held[x], int32(p))
}

// cost of having x own p.
func (l *layout) cost(p int, x int32) int64 {
	if slices.Contains(l.old(p), x) {
		return 0
	}
	return l.gain[x]
}

// walk fills the rows: each node has virtual nodes in proportion to its share, evenly
// strewn over the circle with a jitter taken from its id, and a partition is owned by
// the first nodes met clockwise that its failure domains allow.
func (l *layout) walk() {
	type virtual struct {
		at   float64
		node int32
	}
	var circle []virtual
	for x, n := range l.nodes {
		count := int(l.share[x]/float64(l.r) + 0.5)
		seed := xxhash.Sum64String(n.ID)
		for k := range count {
			jitter := float64(mix(seed, uint64(k))>>11) / (1 << 53)
			circle = append(circle, virtual{(float64(k) + jitter) / float64(count), int32(x)})
		}
	}
	slices.SortFunc(circle, func(a, b virtual) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.node, b.node))
	})
	if len(circle) == 0 {
		return
	}
	for p := range l.q {
		start := p * len(circle) / l.q
		for i := 0; i < len(circle) && l.used[p] < l.r; i++ {
			x := circle[(start+i)%len(circle)].node
			if !slices.Contains(l.row(p), x) && l.domains.fits(l.row(p), l.domains.zone[x], l.r) {
				l.add(p, x)
			}
		}
	}
}

// fill gives every open place to a node that its domains allow: one that is new, if
// there is any, and of these the one that misses most of its share. So each row costs
// as little as it can by itself (the greedy algorithm is exact for nested bounds, which
// make a matroid), whatever that does to the loads.
func (l *layout) fill() {
	fits := make([]bool, len(l.domains.dc))
	for p := range l.q {
		for l.used[p] < l.r {
			for z := range fits {
				fits[z] = l.domains.fits(l.row(p), int32(z), l.r)
			}
			best, most, luck := int32(-1), 0.0, uint64(0)
			for i, n := range l.nodes {
				x := int32(i)
				if n.Weight == 0 || !fits[l.domains.zone[x]] || slices.Contains(l.row(p), x) {
					continue
				}
				missing, draw := (l.share[x]-float64(len(l.held[x])))/l.share[x], mix(uint64(p), uint64(x))
				switch {
				case best < 0 || l.gain[x] < l.gain[best]:
				case l.gain[x] > l.gain[best]:
					continue
				case missing < most || missing == most && draw < luck:
					continue
				}
				best, most, luck = x, missing, draw
			}
			l.add(p, best)
		}
	}
}

// mix is a hash of two numbers.
func mix(a, b uint64) uint64 {
	var w [16]byte
	binary.LittleEndian.PutUint64(w[:8], a)
	binary.LittleEndian.PutUint64(w[8:], b)
	return xxhash.Sum64(w[:])
}
