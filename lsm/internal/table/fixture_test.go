package table

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the fixtures of the newest format version; those of released versions stay as they are")

// The fixtures were written by the first release of each format. Every later
// version opens them.
func TestFixtures(t *testing.T) {
	for name, o := range map[string]WriterOptions{
		"testdata/v1-s2.table":   {BlockBytes: 512},
		"testdata/v1-zstd.table": {BlockBytes: 512, Compression: Zstd},
		"testdata/v1-none.table": {BlockBytes: 512, Compression: None, BitsPerKey: -1},
	} {
		if *rewrite {
			f, _ := build(t, o, everyFeature())
			require.NoError(t, os.WriteFile(name, bytesOf(t, f), 0o644))
		}
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		m, _, _, err := readMeta(readOnly{b: b}, testID)
		require.NoError(t, err)
		require.NoError(t, inspect(t, readOnly{b: b}, m, everyFeature()))
	}
}
