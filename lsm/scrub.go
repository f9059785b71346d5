package lsm

import (
	"context"
	"errors"
	"time"

	"example.com/kvstore/lsm/internal/base"
)

// scrubPause is the least time from the end of one background scrub to the
// beginning of the next: small trees need not be read all the time.
const scrubPause = time.Hour

// Scrub reads all tables once and verifies every byte, at most at
// Options.ScrubBytesPerSecond if that is set. Damage is treated as if a read had
// met it; the error then is an ErrCorrupt for each damaged table, and names those that
// cannot be read. Tables that are
// made meanwhile are left to the next scrub. It fills no cache.
func (t *Tree) Scrub(ctx context.Context) error {
	if !t.hold() {
		return ErrClosed
	}
	defer t.letGo()
	v := t.acquire(0)
	var ids []uint64
	for f := range v.tables() {
		ids = append(ids, f.ID)
	}
	t.release(v, 0)
	var damage []error
	for _, id := range ids {
		if t.closing.Load() {
			return errors.Join(append(damage, ErrClosed)...)
		}
		f := t.pin(id)
		if f == nil {
			continue
		}
		err := f.scrub(ctx)
		t.unpin(f)
		switch {
		case errors.Is(err, ErrCorrupt), errors.Is(err, base.ErrUnreadable):
			damage = append(damage, err)
		case err != nil:
			return errors.Join(append(damage, err)...)
		}
	}
	if t.failure() == nil {
		if err := t.isolate(); err != nil {
			damage = append(damage, err)
		}
	}
	t.stats.scrubs.Add(1)
	return errors.Join(damage...)
}

func (f *tableFile) scrub(ctx context.Context) error {
	r, err := f.open()
	if err != nil {
		return err
	}
	err = r.Verify(func(n int) error { return f.t.pace(ctx, n) })
	return f.hurt(errors.Join(err, r.release()))
}

// pace waits until it is time to read n bytes more.
func (t *Tree) pace(ctx context.Context, n int) error {
	t.stats.scrubbedBytes.Add(uint64(n))
	if t.closing.Load() {
		return ErrClosed
	}
	if t.o.ScrubBytesPerSecond == 0 {
		return ctx.Err()
	}
	wait := time.Duration(float64(n) / float64(t.o.ScrubBytesPerSecond) * float64(time.Second))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ending:
		return ErrClosed
	}
}

// scrubLoop scrubs again and again.
func (t *Tree) scrubLoop() {
	defer t.workers.Done()
	for {
		before := t.stats.scrubbedBytes.Load()
		switch err := t.Scrub(context.Background()); {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			t.o.Logger.Error("lsm: scrub found damage", "error", err)
		default:
			t.o.Logger.Info("lsm: scrub found no damage", "bytes", t.stats.scrubbedBytes.Load()-before)
		}
		timer := time.NewTimer(scrubPause)
		select {
		case <-timer.C:
		case <-t.ending:
			timer.Stop()
			return
		}
	}
}

// pin gives the live table with the number, which stays readable until unpin
// whatever becomes of it meanwhile; nil when there is none. Unlike a version it
// keeps nothing else.
func (t *Tree) pin(id uint64) *tableFile {
	v := t.acquire(0)
	if v == nil {
		return nil
	}
	defer t.release(v, 0)
	for f := range v.tables() {
		if f.ID == id {
			f.versions.Add(1)
			t.mu.Lock()
			t.mu.versions++
			t.mu.Unlock()
			return f
		}
	}
	return nil
}

func (t *Tree) unpin(f *tableFile) {
	var dead []*tableFile
	if f.versions.Add(-1) == 0 {
		dead = append(dead, f)
	}
	t.bury(dead)
}
