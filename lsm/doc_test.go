package lsm

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDocFits holds what go doc prints of the package to two screens.
func TestDocFits(t *testing.T) {
	out, err := exec.Command("go", "doc", ".").CombinedOutput()
	if err != nil {
		t.Skipf("go doc: %v: %s", err, out)
	}
	require.LessOrEqual(t, bytes.Count(out, []byte("\n")), 110)
}
