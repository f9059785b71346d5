package kvstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
	"example.com/kvstore/internal/check"
	"example.com/kvstore/kvtest"
)

// TestSimDefences: with one defence switched off, the same storms that
// TestSimMixed survives break the promise that the defence is for, and the
// checkers notice. With all of them on, nothing is found.
func TestSimDefences(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule string // broken by some seed
		off  func()
		set  func(*kvstore.Options)
	}{
		{name: "all on"},
		{name: "no write-back", rule: "K2", off: func() { kvstore.Defences.WriteBack = false }},
		{name: "no restamp", rule: "K2", off: func() { kvstore.Defences.Restamp = false }},
		{name: "reads at One", rule: "K2", set: func(o *kvstore.Options) { o.Read = kvstore.One }},
		{name: "writes at One", rule: "K2", set: func(o *kvstore.Options) { o.Write = kvstore.One }},
		{name: "acknowledged before the sync", rule: "K1", set: func(o *kvstore.Options) { o.Sync = kvstore.SyncNever }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := *kvstore.Defences
			defer func() { *kvstore.Defences = before }()
			if tt.off != nil {
				tt.off()
			}
			const seeds = 200
			for seed := uint64(1); seed <= seeds; seed++ {
				rules := map[string]bool{}
				for _, v := range storm(t, seed, tt.set) {
					rules[v.Rule] = true
					require.NotEmpty(t, tt.rule, "seed %d: %v", seed, v)
				}
				if rules[tt.rule] {
					t.Logf("%s is broken by seed %d", tt.rule, seed)
					return
				}
				if tt.rule == "" && seed == 5 {
					return
				}
			}
			t.Errorf("%s holds for %d seeds", tt.rule, seeds)
		})
	}
}

// storm judges a short and violent history.
func storm(t *testing.T, seed uint64, set func(*kvstore.Options)) (violations []check.Violation) {
	o := &kvtest.Options{Loss: 0.1, Configure: func(_ int, o *kvstore.Options) {
		o.MaxRequest = time.Second
		if set != nil {
			set(o)
		}
	}}
	simulate(t, seed, o, func(c *kvtest.Cluster) {
		c.Ready()
		w := &crowd{c: c, keys: 3, nodes: []int{0, 1, 2}, think: 5 * time.Millisecond}
		w.start(6)
		defer w.leave()
		c.Storm(5 * time.Second)
		w.leave()
		violations = c.Violations()
	})
	return violations
}
