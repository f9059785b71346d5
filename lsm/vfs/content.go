package vfs

import "slices"

const (
	// pageBytes is the unit of allocation and of copying.
	pageBytes = 4096
	// sectorBytes is what a disk writes whole or not at all.
	sectorBytes = 512
	// maxFileBytes bounds a file in memory, and so its table of pages.
	maxFileBytes = 1 << 34
)

// A page that is frozen never changes again, so that contents, also of
// different file systems, can share it.
type page struct {
	frozen bool
	data   [pageBytes]byte
}

// zeroPage stands for space that is allocated and never written.
var zeroPage = &page{frozen: true}

// A content is the bytes of a file at one moment: copied on write, so that a
// snapshot costs a table of pages at most, and that only at the next change.
//
// Invariant: bytes past size are zero, in every page.
type content struct {
	pages  []*page // nil: a hole
	size   int64
	blocks int64 // pages that are not nil
	shared bool  // another content has the same table: copy it before a change
	lo, hi int   // pages [lo, hi) may have changed since the last freeze
}

// pagesFor is the number of pages that n bytes take.
func pagesFor(n int64) int { return int((n + pageBytes - 1) / pageBytes) }

func (c *content) own() {
	if c.shared {
		c.pages, c.shared = slices.Clone(c.pages), false
	}
}

// touch notes a change of the pages [lo, hi).
func (c *content) touch(lo, hi int) {
	if c.lo == c.hi {
		c.lo, c.hi = lo, hi
		return
	}
	c.lo, c.hi = min(c.lo, lo), max(c.hi, hi)
}

func (c *content) set(i int, p *page) {
	if c.pages[i] != nil {
		c.blocks--
	}
	if p != nil {
		c.blocks++
	}
	c.pages[i] = p
}

// extend lengthens the table to n pages.
func (c *content) extend(n int) {
	c.own()
	for len(c.pages) < n {
		c.pages = append(c.pages, nil)
	}
}

// edit gives page i for writing.
func (c *content) edit(i int) *page {
	c.own()
	c.touch(i, i+1)
	p := c.pages[i]
	switch {
	case p == nil || p == zeroPage:
		p = new(page)
	case p.frozen:
		p = &page{data: p.data}
	default:
		return p
	}
	c.set(i, p)
	return p
}

func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for done := 0; done < len(p); {
		i, from := (off+int64(done))/pageBytes, (off+int64(done))%pageBytes
		part := p[done:min(len(p), done+int(pageBytes-from))]
		if i < int64(len(c.pages)) && c.pages[i] != nil {
			copy(part, c.pages[i].data[from:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return len(p)
}

func (c *content) writeAt(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	end := off + int64(len(p))
	c.extend(pagesFor(end))
	for len(p) > 0 {
		n := copy(c.edit(int(off / pageBytes)).data[off%pageBytes:], p)
		p, off = p[n:], off+int64(n)
	}
	c.size = max(c.size, end)
}

// room tells how many of the n bytes at off can be written with at most free
// new pages.
func (c *content) room(off, n, free int64) int64 {
	for i := off / pageBytes; i*pageBytes < off+n; i++ {
		if i < int64(len(c.pages)) && c.pages[i] != nil {
			continue
		}
		if free == 0 {
			return max(0, i*pageBytes-off)
		}
		free--
	}
	return n
}

func (c *content) resize(size int64) {
	n := pagesFor(size)
	if n < len(c.pages) {
		c.own()
		c.touch(n, len(c.pages))
		for i := n; i < len(c.pages); i++ {
			c.set(i, nil)
		}
		c.pages = c.pages[:n]
	}
	c.extend(n)
	if tail := size % pageBytes; size < c.size && tail > 0 && c.pages[n-1] != nil {
		clear(c.edit(n - 1).data[tail:])
	}
	c.size = size
}

func (c *content) allocate(off, n int64) {
	c.extend(pagesFor(off + n))
	for i := int(off / pageBytes); i < pagesFor(off+n); i++ {
		if c.pages[i] == nil {
			c.touch(i, i+1)
			c.set(i, zeroPage)
		}
	}
	c.size = max(c.size, off+n)
}

func (c *content) freeze() {
	for _, p := range c.pages[min(c.lo, len(c.pages)):min(c.hi, len(c.pages))] {
		if p != nil && !p.frozen {
			p.frozen = true
		}
	}
	c.lo, c.hi = 0, 0
}

// snapshot gives a second content with the same bytes.
func (c *content) snapshot() content {
	c.freeze()
	c.shared = true
	return *c
}

// adopt makes c, which lacks only what from changed since its last freeze, the
// same as from.
func (c *content) adopt(from *content) {
	lo, hi := from.lo, min(from.hi, len(from.pages))
	from.freeze()
	if from.size != c.size {
		c.resize(from.size)
	}
	if lo < hi {
		c.own()
	}
	for i := lo; i < hi; i++ {
		c.set(i, from.pages[i])
	}
}
