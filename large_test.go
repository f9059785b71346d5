package kvstore_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// TestLargeValues: values at the limit cross the log, the network and a restart,
// many at a time.
func TestLargeValues(t *testing.T) {
	const size = 8 << 20
	dbs := openThree(t, func(o *kvstore.Options) { o.MaxValueBytes = size })
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4) }
	for i := range 3 {
		_, err := dbs[i].Put(ctx, fmt.Sprint(i), value(i), kvstore.All)
		require.NoError(t, err)
	}
	for i := range 3 {
		it, err := dbs[(i+1)%3].Get(ctx, fmt.Sprint(i), kvstore.All)
		require.NoError(t, err)
		require.True(t, bytes.Equal(value(i), it.Value))
	}
	each(t, dbs, 200, func(db *kvstore.DB, i int) error {
		_, err := db.Put(ctx, fmt.Sprint("many", i), value(i)[:size/32])
		return err
	})
}
