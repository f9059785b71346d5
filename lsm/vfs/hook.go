package vfs

import "sync/atomic"

// Hooks asks each hook in turn; the first error is the answer.
func Hooks(hooks ...Hook) Hook {
	return func(op Op) error {
		for _, hook := range hooks {
			if err := hook(op); err != nil {
				return err
			}
		}
		return nil
	}
}

// Nth asks hook about the i-th operation, from 0, of the kinds that match:
//
//	vfs.Nth(i, vfs.Kind.Changes, func(vfs.Op) error { return vfs.ErrInjected })
func Nth(i int, match func(Kind) bool, hook Hook) Hook {
	var n atomic.Int64
	return func(op Op) error {
		if match(op.Kind) && n.Add(1)-1 == int64(i) {
			return hook(op)
		}
		return nil
	}
}

// FailSync fails the i-th sync, from 0, of files and directories together. On a
// Mem what was to be synced is then lost, as pages says.
func FailSync(i int, pages Pages) Hook {
	return Nth(i, Kind.Syncs, func(Op) error { return &SyncError{Pages: pages, Err: ErrInjected} })
}

// CrashAt hands visit the disk after a power cut before the i-th operation, from
// 0, that changes m, while the workload goes on.
func CrashAt(m *Mem, seed uint64, i int, visit func(*Mem)) Hook {
	return Nth(i, Kind.Changes, func(Op) error {
		visit(m.Crash(seed))
		return nil
	})
}

// CrashEach hands visit the disk after a power cut before each operation that
// changes m: so one run of a workload gives all its crashes. The cut during an
// operation is among those before the next. visit runs on the goroutine of the
// operation, before it is done.
func CrashEach(m *Mem, seed uint64, visit func(Op, *Mem)) Hook {
	return func(op Op) error {
		if op.Kind.Changes() {
			visit(op, m.Crash(mix(seed, op.N)))
		}
		return nil
	}
}

// A Tally counts operations; its method Note is the hook.
type Tally struct{ n [kinds]atomic.Int64 }

// Note counts op.
func (t *Tally) Note(op Op) error {
	t.n[op.Kind].Add(1)
	return nil
}

// Count is the number of operations so far of the kinds that match:
// t.Count(vfs.Kind.Syncs).
func (t *Tally) Count(match func(Kind) bool) int {
	total := 0
	for k := range kinds {
		if match(k) {
			total += int(t.n[k].Load())
		}
	}
	return total
}
