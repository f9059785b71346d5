package kvstore

import (
	"context"
	"iter"
)

// KV is what can be done with keys: by a DB, by a client without storage (not built yet), and by
// the nodes of kvtest.
type KV interface {
	Get(ctx context.Context, key string, opts ...GetOption) (Item, error)
	Put(ctx context.Context, key string, value []byte, opts ...PutOption) (Version, error)
	Delete(ctx context.Context, key string, opts ...DeleteOption) error
	Update(ctx context.Context, key string, fn func(Item) ([]byte, error), opts ...PutOption) (Item, error)
	GetMany(ctx context.Context, keys []string, opts ...GetOption) ([]Item, error)
	Apply(ctx context.Context, b *Batch, opts ...BatchOption) error
	Scan(ctx context.Context, opts ...ScanOption) iter.Seq2[Item, error]
}

var _ KV = (*DB)(nil)
