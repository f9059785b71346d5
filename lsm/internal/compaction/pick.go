// Package compaction decides which tables are merged: lazy levelling in token
// slices, as a pure function of what the runs are.
//
//	level 0   [] [] []      flushed, one run each          \
//	level 1   [==] [==]     merged from Width of level 0    > tiered
//	level 2   [========]    merged from Width of level 1   /
//	Bottom    [===================================]          one run
//
// A run is a sequence of tables of one slice that do not overlap. Writes cost
// what tiering costs, log_Width(bottom / flush) times, and once the bottom,
// divided by how much is collected above it before (Share). Space that is
// waste is bounded by what lies above the bottom.
//
// Joins are commutative: any runs of a slice may be merged, at any time, also
// while others of the slice are.
package compaction

import "example.com/kvstore/lsm/internal/manifest"

const (
	// Width is how many runs of one level become one of the next.
	Width = 6
	// Waiting is how many runs of one level may wait for the bottom of their slice to be
	// merged, if that is soon.
	Waiting = 3 * Width
	// FirstRuns is how many runs become the bottom of a slice that has none.
	FirstRuns = 4
	// Share is the part of the bottom that one slice collects above it before
	// both are merged, when all slices are filled alike: see bottom.
	Share = 0.8
	// PurgeShare is the part of a slice's records that must be droppable for
	// that alone to be a reason to merge it.
	PurgeShare = 0.25

	// RestShare is what replaces Share while nobody writes: then waste is
	// collected early, when it costs nobody anything.
	RestShare = 0.1

	// Bottom is the level of the lowest run. A slice has at most one.
	Bottom = manifest.MaxLevel
)

// A Run is what Pick knows of a run.
type Run struct {
	Level     uint8
	Bytes     uint64
	Records   uint64
	Purgeable uint64 // records that a merge of the whole slice can drop
	Busy      bool   // a compaction reads it: leave it
}

// A Job is a compaction: runs of one slice, as indices, and the level of the
// run that they become.
type Job struct {
	Slice int
	Runs  []int
	Level uint8
}

// Conditions are what Pick has to heed beside the runs.
type Conditions struct {
	Resting   bool                 // nobody writes
	NoBottoms bool                 // merge no bottom: such merges are long, and small ones must not wait for them
	Held      func(slice int) bool // slices to leave alone; nil: none
}

// Pick gives the most urgent compaction of the slices, not ok when there is
// none.
func Pick(slices [][]Run, c Conditions) (Job, bool) {
	free := func(s int) bool { return c.Held == nil || !c.Held(s) }
	if !c.NoBottoms {
		for s, runs := range slices {
			if free(s) && purges(runs) {
				return whole(s, runs), true
			}
		}
		if s, ok := bottom(slices, c.Resting, free); ok {
			return whole(s, slices[s]), true
		}
	}
	return tier(slices, free)
}

// Debt is the sum of the bytes that the compactions would read that Pick asks
// for now.
func Debt(slices [][]Run) uint64 {
	left := make([][]Run, len(slices))
	for s := range slices {
		left[s] = append([]Run(nil), slices[s]...)
	}
	var debt uint64
	for {
		j, ok := Pick(left, Conditions{})
		if !ok {
			return debt
		}
		for _, i := range j.Runs {
			left[j.Slice][i].Busy = true
			debt += left[j.Slice][i].Bytes
		}
	}
}

// Where Pressure begins and ends.
const (
	softRuns  = 0.4 // of the runs that a slice may have
	softWaste = 0.7 // bytes above the bottoms by those of the bottoms
	hardWaste = 1.1
)

// Pressure says how far compactions have fallen behind: from 0 or less, where
// nothing has to be done about it, to 1, where no more may come. Most is the
// number of runs of a slice at which that is so. Slack is a number of bytes above
// the bottoms that never counts as waste.
func Pressure(slices [][]Run, most int, slack uint64) float64 {
	var above, below float64
	crowd := 0
	for _, runs := range slices {
		crowd = max(crowd, len(runs))
		for _, r := range runs {
			if r.Level == Bottom {
				below += float64(r.Bytes)
			} else {
				above += float64(r.Bytes)
			}
		}
	}
	soft := softRuns * float64(most)
	p := (float64(crowd) - soft) / (float64(most) - soft)
	if below > 0 {
		waste := (above - float64(slack)) / below
		p = max(p, (waste-softWaste)/(hardWaste-softWaste))
	}
	return min(p, 1)
}

// whole merges all that is not busy into the bottom.
func whole(s int, runs []Run) Job {
	j := Job{Slice: s, Level: Bottom}
	for i := range runs {
		if !runs[i].Busy {
			j.Runs = append(j.Runs, i)
		}
	}
	return j
}

// purges reports whether so many records can go that it is worth a merge.
func purges(runs []Run) bool {
	var all, gone uint64
	for _, r := range runs {
		if r.Busy {
			return false
		}
		all += r.Records
		gone += r.Purgeable
	}
	return gone > 0 && float64(gone) >= PurgeShare*float64(all)
}

// A shape is a slice as bottom sees it.
type shape struct {
	above, bottom uint64 // bytes; above: that are not busy
	runs          int    // above
	busy          bool   // the bottom, or any run where there is no bottom
}

func shapeOf(runs []Run) shape {
	low := -1
	for i := range runs {
		if runs[i].Level == Bottom && (low < 0 || runs[low].Bytes < runs[i].Bytes) {
			low = i
		}
	}
	var s shape
	for i, r := range runs {
		switch {
		case i == low:
			s.bottom, s.busy = r.Bytes, s.busy || r.Busy
		case r.Busy:
			s.busy = s.busy || low < 0
		default:
			s.above += r.Bytes
			s.runs++
		}
	}
	return s
}

func (s shape) ratio() float64 { return float64(s.above) / float64(max(s.bottom, 1)) }

// bottom chooses the slice whose bottom is to be merged with what is above it.
//
// The sum over the slices decides when, the ratio of a slice which one. So the
// slices take turns, with equal intervals, each when it has collected Share of
// its bottom, and the waste of the whole tree hardly varies: of n slices the
// ratios are then Share/n, 2 Share/n, ... Share, Share (n+1)/2n in the mean. A
// slice that fills faster than the others is merged at a ratio of 1 in any case.
func bottom(slices [][]Run, resting bool, free func(int) bool) (slice int, ok bool) {
	var above, below, n float64
	best, at := 0.0, -1
	for s, runs := range slices {
		f := shapeOf(runs)
		above += float64(f.above)
		below += float64(f.bottom)
		if f.bottom > 0 {
			n++
		}
		switch {
		case f.busy || f.runs == 0 || !free(s):
		case f.bottom == 0 && f.runs < FirstRuns:
		case f.ratio() > best:
			best, at = f.ratio(), s
		}
	}
	switch {
	case at < 0:
		return 0, false
	case best >= 1 || resting && best >= RestShare:
		return at, true
	}
	return at, n > 0 && above >= Share*(n+1)/(2*n)*below && best >= Share/4
}

// soon reports whether the bottom of a slice is about to be merged: before as much comes
// above it as the chosen runs hold. To merge these now would write them once more for
// hardly anything.
func soon(runs []Run, chosen []int) bool {
	var above, now, bottom uint64
	for _, r := range runs {
		if r.Level == Bottom {
			bottom += r.Bytes
		} else {
			above += r.Bytes
		}
	}
	for _, i := range chosen {
		now += runs[i].Bytes
	}
	return bottom > 0 && float64(above+now) >= Share*float64(bottom)
}

// tier chooses Width runs of one level to become one of the next: those of the
// slice that has most runs, and of the lowest level there.
func tier(slices [][]Run, free func(int) bool) (Job, bool) {
	var best Job
	most := 0
	for s, runs := range slices {
		if len(runs) <= most || !free(s) {
			continue
		}
		var levels [Bottom + 1][]int
		for i, r := range runs {
			if !r.Busy {
				levels[r.Level] = append(levels[r.Level], i)
			}
		}
		for level, chosen := range levels[:Bottom] {
			if len(chosen) >= Width && (len(chosen) >= Waiting || !soon(runs, chosen)) {
				best, most = Job{s, chosen, uint8(min(level+1, Bottom-1))}, len(runs)
				break
			}
		}
	}
	return best, most > 0
}
