package manifest

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the fixture of the newest format version; those of released versions stay as they are")

// The fixture was written by the first release of the format. Every later
// version opens it.
func TestFixture(t *testing.T) {
	const file = "testdata/v1.manifest"
	mem := newDir(t)
	m := create(t, mem)
	for i := range uint64(6) {
		require.NoError(t, m.Apply(editOf(i)))
	}
	if *rewrite {
		require.NoError(t, os.WriteFile(file, contentOf(t, mem), 0o644))
	}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	s, err := Read(dirOf(t, b), dir)
	require.NoError(t, err)
	require.Equal(t, m.State(), s)
}
