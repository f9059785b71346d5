package ring

import "math"

// Failure domains. A partition's replicas are spread as evenly over the zones as
// the number of nodes in each allows, and then as evenly over the data centres
// as the zones allow: each zone and data centre holds between lo and hi of them,
// and hi-lo <= 1 unless a bound from below or above binds.
type domains struct {
	zone           []int32 // of each node
	dc             []int32 // of each zone
	zoneLo, zoneHi []int
	dcLo, dcHi     []int
	floor          int // sum of dcLo
}

func newDomains(nodes []Node, zone []int32, r int) *domains {
	d := &domains{zone: zone}
	number := make(map[string]int32)
	for i, n := range nodes {
		if int(zone[i]) == len(d.dc) {
			if _, ok := number[n.DataCenter]; !ok {
				number[n.DataCenter] = int32(len(number))
			}
			d.dc = append(d.dc, number[n.DataCenter])
		}
	}
	size := make([]int, len(d.dc))
	for i, n := range nodes {
		if n.Weight > 0 {
			size[zone[i]]++
		}
	}
	d.zoneLo, d.zoneHi = level(make([]int, len(size)), size, r)
	lo, hi := make([]int, len(number)), make([]int, len(number))
	for z, c := range d.dc {
		lo[c] += d.zoneLo[z]
		hi[c] += d.zoneHi[z]
	}
	d.dcLo, d.dcHi = level(lo, hi, r)
	for _, l := range d.dcLo {
		d.floor += l
	}
	return d
}

// level spreads n evenly over bins that hold lo to hi each and returns the bounds
// of what a bin then holds. It needs sum(lo) <= n <= sum(hi).
func level(lo, hi []int, n int) (below, above []int) {
	at := func(l int) (bins []int, sum int) {
		bins = make([]int, len(lo))
		for i := range bins {
			bins[i] = min(max(l, lo[i]), hi[i])
			sum += bins[i]
		}
		return bins, sum
	}
	below, _ = at(0)
	for l := 0; ; l++ {
		bins, sum := at(l)
		if sum <= n {
			below = bins
		}
		if sum >= n {
			return below, bins
		}
	}
}

// fits reports whether a node of zone z can join the owners so that the whole
// can still be completed to r owners within all bounds.
func (d *domains) fits(owners []int32, z int32, r int) bool {
	if len(owners) >= r {
		return false
	}
	inZone, inDC := 1, 1
	for _, x := range owners {
		if d.zone[x] == z {
			inZone++
		}
		if d.dc[d.zone[x]] == d.dc[z] {
			inDC++
		}
	}
	c := d.dc[z]
	if inZone > d.zoneHi[z] || inDC > d.dcHi[c] {
		return false
	}
	if d.floor == 0 {
		return true
	}
	return d.reserved(owners, z) <= r
}

// reserved counts the owners there must be in the end when these and one of zone z
// are among them: bounds from below claim places. Such bounds exist only while there
// are at most r zones or data centres, so the slices are short then.
func (d *domains) reserved(owners []int32, z int32) int {
	perZone := make([]int, len(d.dc))
	for _, x := range owners {
		perZone[d.zone[x]]++
	}
	perZone[z]++
	perDC := make([]int, len(d.dcLo))
	for z, n := range perZone {
		perDC[d.dc[z]] += max(n, d.zoneLo[z])
	}
	sum := 0
	for c, n := range perDC {
		if n > d.dcHi[c] {
			return math.MaxInt
		}
		sum += max(n, d.dcLo[c])
	}
	return sum
}

// swaps reports whether x may give its place among the owners to a node of zone z.
func (d *domains) swaps(owners []int32, x, z int32) bool {
	from := d.zone[x]
	if from == z {
		return true
	}
	var give, take, giveDC, takeDC int
	for _, o := range owners {
		switch d.zone[o] {
		case from:
			give++
		case z:
			take++
		}
		switch d.dc[d.zone[o]] {
		case d.dc[from]:
			giveDC++
		case d.dc[z]:
			takeDC++
		}
	}
	if give <= d.zoneLo[from] || take >= d.zoneHi[z] {
		return false
	}
	return d.dc[from] == d.dc[z] || giveDC > d.dcLo[d.dc[from]] && takeDC < d.dcHi[d.dc[z]]
}

// A pool takes between lo and hi replicas and hands them to its parts or, when it
// has a weight itself, keeps them for one node.
type pool struct {
	lo, hi float64
	weight float64
	parts  []*pool
	node   int
}

// at is what the pool takes when a weight of 1 is worth level replicas. The
// conversion keeps the compiler from fusing operations, so that every machine
// computes the same shares.
func (g *pool) at(level float64) float64 {
	sum := float64(g.weight * level)
	for _, part := range g.parts {
		sum += part.at(level)
	}
	return min(max(sum, g.lo), g.hi)
}

// share hands out total to the nodes below g: all parts at one level, except
// those held back by a bound.
func (g *pool) share(total float64, out []float64) {
	if g.weight > 0 {
		out[g.node] = total
		return
	}
	lo, hi := 0.0, float64(MaxPartitions)*MaxReplicas/MinWeight
	for range 100 {
		mid := lo + (hi-lo)/2
		sum := 0.0
		for _, part := range g.parts {
			sum += part.at(mid)
		}
		if sum < total {
			lo = mid
		} else {
			hi = mid
		}
	}
	for _, part := range g.parts {
		part.share(part.at(hi), out)
	}
}

// shares returns how many of the q*r replicas each node should hold: in proportion
// to the weights as far as the bounds of nodes (q), zones and data centres allow.
func (d *domains) shares(nodes []Node, q, r int) []float64 {
	root := &pool{hi: math.Inf(1)}
	for c := range d.dcLo {
		root.parts = append(root.parts, &pool{lo: float64(q * d.dcLo[c]), hi: float64(q * d.dcHi[c])})
	}
	zones := make([]*pool, len(d.dc))
	for z, c := range d.dc {
		zones[z] = &pool{lo: float64(q * d.zoneLo[z]), hi: float64(q * d.zoneHi[z])}
		root.parts[c].parts = append(root.parts[c].parts, zones[z])
	}
	for i, n := range nodes {
		g := zones[d.zone[i]]
		if n.Weight > 0 {
			g.parts = append(g.parts, &pool{hi: float64(q), weight: n.Weight, node: i})
		}
	}
	out := make([]float64, len(nodes))
	root.share(float64(q*r), out)
	return out
}
