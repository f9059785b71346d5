package table

import (
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression says how blocks are stored.
type Compression uint8

const (
	// S2 is the default.
	S2 Compression = iota
	// None makes reads cheaper by about 0.3 us and files larger.
	None
	// Zstd makes text and the like smaller than S2 does, reads dearer by about a
	// microsecond, and building several times slower.
	Zstd
)

// The compression byte of a stored block.
const (
	storedRaw  = 0
	storedS2   = 1
	storedZstd = 2
)

// maxZstdWindow is a power of two above maxBlockBytes: a block is one segment.
const maxZstdWindow = 128 << 20

// The coders are shared by all tables. They start no goroutine, and keep the
// memory of as many calls as run at once.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		// A single segment declares its size, however small.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true),
			zstd.WithWindowSize(largestBlockBytes), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		// What is decoded goes to memory of the declared size and no other.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(maxBlockBytes), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// compress gives what is stored of a block, which may be the content itself or lie
// in memory, and the memory for the next call.
func (c Compression) compress(content, memory []byte) (stored []byte, kind byte, next []byte) {
	stored, kind = content, storedRaw
	switch c {
	case S2:
		if n := s2.MaxEncodedLen(len(content)); n > len(memory) {
			memory = make([]byte, n)
		}
		stored, kind = s2.Encode(memory, content), storedS2
	case Zstd:
		stored, kind = zstdEncoder().EncodeAll(content, memory[:0]), storedZstd
		memory = stored[:cap(stored)]
	}
	if len(stored) > len(content)-len(content)/16 {
		return content, storedRaw, memory
	}
	return stored, kind, memory
}

// decompress undoes compress; what it gives may be stored itself or lie in memory.
// It allocates no more than a block may be large, whatever stored is. known is
// false for a kind of a newer version, ok is false for bytes that are none of
// their kind.
func decompress(stored []byte, kind byte, memory []byte) (content, next []byte, known, ok bool) {
	var size int
	var err error
	switch kind {
	case storedRaw:
		return stored, memory, true, true
	case storedS2:
		size, err = s2.DecodedLen(stored)
	case storedZstd:
		var h zstd.Header
		if err = h.Decode(stored); err == nil && (!h.HasFCS || h.FrameContentSize > maxBlockBytes) {
			return nil, memory, true, false
		}
		size = int(h.FrameContentSize)
	default:
		return nil, memory, false, false
	}
	if err != nil || size > maxBlockBytes {
		return nil, memory, true, false
	}
	memory = resize(memory, size)
	if kind == storedS2 {
		content, err = s2.Decode(memory, stored)
	} else {
		content, err = zstdDecoder().DecodeAll(stored, memory[:0:size])
	}
	return content, memory, true, err == nil && len(content) == size
}
