package ring

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// A Ring says which nodes own each partition. It is immutable and safe for
// concurrent use.
type Ring struct {
	epoch uint64
	n     int    // wanted replicas
	r     int    // replicas there are: n, or the number of nodes with a weight if that is smaller
	shift uint   // a token's partition is token >> shift
	nodes []Node // sorted by ID
	zone  []int32
	// owners holds r node indexes for each partition, the first owner first.
	// Invariant: they are distinct and have a weight.
	owners  []int32
	changed []uint64
}

// Token is the position of a key: its 64-bit xxHash. The last 2^32 positions are
// reserved, so a key that hashes to one of them moves down before them.
func Token(key string) uint64 { return min(xxhash.Sum64String(key), math.MaxUint64-1<<32) }

// New lays out q partitions (a power of two, at most MaxPartitions) with n
// replicas each over nodes, at epoch 1. With fewer than n nodes of positive
// weight every one of them owns everything.
func New(q, n int, nodes []Node) (*Ring, error) {
	if err := checkShape(q, n); err != nil {
		return nil, err
	}
	nodes, err := sortNodes(nodes)
	if err != nil {
		return nil, err
	}
	r := newRing(1, q, n, nodes)
	l := newLayout(r, nil)
	l.walk()
	l.balance()
	r.owners = l.own
	r.evenFirsts()
	for p := range r.changed {
		r.changed[p] = 1
	}
	return r, nil
}

func checkShape(q, n int) error {
	if q < 1 || q > MaxPartitions || bits.OnesCount(uint(q)) != 1 {
		return fmt.Errorf("ring: %d partitions, use a power of two up to %d", q, MaxPartitions)
	}
	if n < 1 || n > MaxReplicas {
		return fmt.Errorf("ring: %d replicas, use 1 to %d", n, MaxReplicas)
	}
	return nil
}

// newRing returns a ring without owners. nodes are sorted and checked.
func newRing(epoch uint64, q, n int, nodes []Node) *Ring {
	return &Ring{
		epoch:   epoch,
		n:       n,
		r:       min(n, holders(nodes)),
		shift:   uint(64 - bits.TrailingZeros(uint(q))),
		nodes:   nodes,
		zone:    zonesOf(nodes),
		changed: make([]uint64, q),
	}
}

// zonesOf numbers the zones and gives each node's.
func zonesOf(nodes []Node) []int32 {
	type name struct{ dc, zone string }
	number := make(map[name]int32)
	zone := make([]int32, len(nodes))
	for i, n := range nodes {
		k := name{n.DataCenter, n.Zone}
		if _, ok := number[k]; !ok {
			number[k] = int32(len(number))
		}
		zone[i] = number[k]
	}
	return zone
}

// Epoch is 1 for a new ring and one more after each Rebalance.
func (r *Ring) Epoch() uint64 { return r.epoch }

// Partitions is Q, the number of partitions.
func (r *Ring) Partitions() int { return len(r.changed) }

// N is the wanted number of replicas. While there are fewer nodes to hold data
// a partition has fewer owners: len(r.Owners(p)) counts.
func (r *Ring) N() int { return r.n }

// Nodes returns the nodes sorted by ID. The slice must not be modified.
func (r *Ring) Nodes() []Node { return r.nodes }

// Partition returns the partition of a token: its top log2(Q) bits.
func (r *Ring) Partition(token uint64) int { return int(token >> r.shift) }

// Range returns the first and the last token of partition p.
func (r *Ring) Range(p int) (lo, hi uint64) {
	lo = uint64(p) << r.shift
	return lo, lo + (uint64(1)<<r.shift - 1)
}

// Owners returns the owners of partition p as indexes into Nodes, the first
// owner first. The slice must not be modified.
func (r *Ring) Owners(p int) []int32 { return r.owners[p*r.r : (p+1)*r.r : (p+1)*r.r] }

// Changed returns the epoch in which the owners of partition p last changed.
func (r *Ring) Changed(p int) uint64 { return r.changed[p] }

// Index returns the position of the node in Nodes, or -1.
func (r *Ring) Index(id string) int {
	i, ok := slices.BinarySearchFunc(r.nodes, id, func(n Node, id string) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return -1
	}
	return i
}

// AppendPreference appends the preference list of partition p: its owners, then
// the fallbacks met on the clockwise walk over the owners of the partitions that
// follow, those in zones not yet on the list first. Every node with a weight is
// on it once. It does not allocate when dst has room.
func (r *Ring) AppendPreference(dst []int32, p int) []int32 {
	var listed, zones [MaxNodes / 64]uint64
	add := func(x int32) {
		listed[x/64] |= 1 << (x % 64)
		z := r.zone[x]
		zones[z/64] |= 1 << (z % 64)
		dst = append(dst, x)
	}
	for _, x := range r.Owners(p) {
		add(x)
	}
	missing := holders(r.nodes) - r.r
	visit := func(x int32, anyZone bool) {
		z := r.zone[x]
		if listed[x/64]>>(x%64)&1 == 0 && (anyZone || zones[z/64]>>(z%64)&1 == 0) {
			add(x)
			missing--
		}
	}
	for _, anyZone := range [...]bool{false, true} {
		for i := (p + 1) * r.r; i < p*r.r+len(r.owners) && missing > 0; i++ {
			visit(r.owners[i%len(r.owners)], anyZone)
		}
	}
	for x := 0; x < len(r.nodes) && missing > 0; x++ { // nodes without a partition
		if r.nodes[x].Weight > 0 {
			visit(int32(x), true)
		}
	}
	return dst
}

// evenFirsts orders the owners of each partition so that every node comes first
// in about its share: first owners take most of the traffic. Which nodes own a
// partition does not change. Each swap lowers the sum of squared differences
// from the share, so the loop ends.
func (r *Ring) evenFirsts() {
	over := make([]float64, len(r.nodes)) // firsts above the share
	for i, x := range r.owners {
		over[x] -= 1 / float64(r.r)
		if i%r.r == 0 {
			over[x]++
		}
	}
	for again := true; again; {
		again = false
		for p := range r.changed {
			o := r.Owners(p)
			best := 0
			for i := range o {
				if over[o[i]] < over[o[best]] {
					best = i
				}
			}
			if over[o[0]]-over[o[best]] > 1.000001 {
				over[o[0]]--
				over[o[best]]++
				o[0], o[best] = o[best], o[0]
				again = true
			}
		}
	}
}
