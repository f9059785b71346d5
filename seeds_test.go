package kvstore_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/kvstore"
)

// TestSeedByName: a seed may be a name that is looked up.
func TestSeedByName(t *testing.T) {
	first := open(t, "", &kvstore.Options{NodeID: "first", Listen: "127.0.0.1:0"})
	s, err := first.Status(ctx)
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(s.Members[0].Addr)
	require.NoError(t, err)
	second := open(t, "", &kvstore.Options{NodeID: "second", Listen: "127.0.0.1:0", Seeds: []string{"dns://localhost:" + port}})
	ready(t, first, second)
}
