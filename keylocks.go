package kvstore

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// maxKeyWaiters bounds the calls that wait for one key.
const maxKeyWaiters = 4096

// keyLocks let the calls that change a key on this node take turns: each waits for
// those before it, in the order in which they came. A lock is held until a write is
// synced, or for a whole Update, so it is a channel and no mutex.
type keyLocks struct {
	mu struct {
		sync.Mutex
		locks map[string]*keyLock
	}
}

// A keyLock exists as long as somebody holds or awaits it.
type keyLock struct {
	users int           // guarded by keyLocks.mu
	held  chan struct{} // capacity 1, full when held
}

// lock waits for the key. unlock never blocks and must be called once.
func (l *keyLocks) lock(ctx context.Context, key string, deadline time.Time) (unlock func(), err error) {
	l.mu.Lock()
	if l.mu.locks == nil {
		l.mu.locks = map[string]*keyLock{}
	}
	k := l.mu.locks[key]
	if k == nil {
		k = &keyLock{held: make(chan struct{}, 1)}
		l.mu.locks[key] = k
	}
	if k.users > maxKeyWaiters {
		l.mu.Unlock()
		return nil, fmt.Errorf("%w: %d calls wait for the key", ErrOverloaded, maxKeyWaiters)
	}
	k.users++
	l.mu.Unlock()
	unlock = func() { <-k.held; l.leave(key, k) }
	select {
	case k.held <- struct{}{}:
		return unlock, nil
	default:
	}
	var timeout <-chan time.Time
	if defences.Expiry {
		timer := time.NewTimer(deadline.Sub(now()))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case k.held <- struct{}{}:
		return unlock, nil
	case <-ctx.Done():
		err = contextError(ctx)
	case <-timeout:
		err = ErrTimeout
	}
	l.leave(key, k)
	return nil, err
}

func (l *keyLocks) leave(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.mu.locks, key)
	}
}
