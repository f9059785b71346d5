package vfs

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTearTouchesNothingElse(t *testing.T) {
	const off, n, size = 1000, 5000, 20_000
	data := bytes.Repeat([]byte{0xaa}, n)
	old := bytes.Repeat([]byte{0x55}, size)
	seen := map[wound]int{}
	for seed := range uint64(2000) {
		var c content
		c.writeAt(old, 0)
		disk := c.snapshot()
		fate := stream(mix(0, seed))
		w := drawWound(&fate)
		seen[w]++
		tear(&edit{off: off, data: data}, w, fate, &disk)
		got := make([]byte, size)
		require.Equal(t, size, disk.readAt(got, 0))
		require.EqualValues(t, size, disk.size)
		require.Equal(t, old[:off], got[:off])
		require.Equal(t, old[off+n:], got[off+n:])
		c.readAt(got, 0)
		require.Equal(t, old, got, "the snapshot's source changed")
	}
	require.Len(t, seen, int(wounds))
	for w, times := range seen {
		require.Greater(t, times, 50, "wound %d", w)
	}
	require.Greater(t, seen[whole], seen[garbage])
}

func TestSectors(t *testing.T) {
	require.Equal(t, 0, sectorBelow(0, 511))
	require.Equal(t, 512, sectorBelow(0, 512))
	require.Equal(t, 12, sectorBelow(500, 100))
	require.Equal(t, 0, sectorBelow(500, 11))
	var got [][2]int
	eachSector(500, 600, func(lo, hi int) { got = append(got, [2]int{lo, hi}) })
	require.Equal(t, [][2]int{{0, 12}, {12, 524}, {524, 600}}, got)
}

// Contents that share pages never see each other's changes.
func TestContentIsCopiedOnWrite(t *testing.T) {
	var now, disk content
	var want [][]byte
	var images []content
	r := stream(1)
	buf := make([]byte, 3*pageBytes)
	for range 300 {
		switch r.below(5) {
		case 0:
			now.resize(r.below(8 * pageBytes))
		case 1:
			now.allocate(r.below(8*pageBytes), 1+r.below(2*pageBytes))
		default:
			p := buf[:1+r.below(int64(len(buf)))]
			r.fill(p)
			now.writeAt(p, r.below(8*pageBytes))
		}
		live := all(&now)
		if r.below(3) == 0 {
			disk.adopt(&now)
			images = append(images, disk.snapshot())
			want = append(want, live)
		}
	}
	for i := range images {
		require.True(t, bytes.Equal(want[i], all(&images[i])), "image %d", i)
		blocks := 0
		for _, p := range images[i].pages {
			if p != nil {
				blocks++
				require.True(t, p.frozen)
			}
		}
		require.EqualValues(t, blocks, images[i].blocks)
		require.Equal(t, pagesFor(images[i].size), len(images[i].pages))
	}
}

func all(c *content) []byte {
	p := make([]byte, c.size)
	c.readAt(p, 0)
	return p
}
