package transport

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMetricsString(t *testing.T) {
	require.Equal(t, ``+
		"transport      open        calls       frames        bytes   per call\n"+
		"  written         2           10          200        20000       20.0\n"+
		"  read                        40          201        20100        5.0\n"+
		"  dialed 3, lost 1, refused 4, busy 5, expired 6, late 7, malformed 8\n",
		Metrics{Open: 2, Writes: 10, Reads: 40, FramesOut: 200, FramesIn: 201, BytesOut: 20000, BytesIn: 20100,
			Refused: 4, Dials: 3, Lost: 1, Busy: 5, Expired: 6, Late: 7, Malformed: 8}.String())
	require.NotPanics(t, func() { _ = Metrics{}.String() })
}
