package lsm

import (
	"fmt"

	"example.com/kvstore/lsm/internal/compaction"
)

// MaxLevel is the level of the bottom runs; those above it count up from 0, where
// flushes go.
const MaxLevel = compaction.Bottom

// A LevelMetrics says what is on one level, of all slices together.
type LevelMetrics struct {
	Level, Runs, Tables int
	Bytes, Records      uint64
}

func levelName(level int) string {
	if level == MaxLevel {
		return "the bottom"
	}
	return fmt.Sprintf("level %d", level)
}

// levels gives the levels that hold anything, ascending.
func (v *version) levels() (all []LevelMetrics) {
	var on [MaxLevel + 1]LevelMetrics
	for _, s := range v.slices {
		for _, r := range s {
			l := &on[r.level]
			l.Runs++
			l.Tables += len(r.files)
			l.Bytes += r.bytes
			for _, f := range r.files {
				l.Records += f.Count
			}
		}
	}
	for i, l := range on {
		if l.Runs > 0 {
			l.Level = i
			all = append(all, l)
		}
	}
	return all
}

// SpaceAmplification is what tables take for each byte of the bottom runs: at
// most so much more than if everything were merged. It is 1 while nothing has
// reached the bottom.
func (m Metrics) SpaceAmplification() float64 {
	for _, l := range m.Levels {
		if l.Level == MaxLevel {
			return float64(m.TableBytes) / float64(l.Bytes)
		}
	}
	return 1
}
