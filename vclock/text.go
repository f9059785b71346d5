package vclock

import (
	"encoding/base64"
	"fmt"
)

// text is strict: one text for one history.
var text = base64.RawURLEncoding.Strict()

// MarshalText gives the history as letters, digits, minus and underscore only:
// 24 of them for a plain write, 64 for every 3 entries of V. It is unique, and
// may stand in a URL, or between quotes as an HTTP entity tag.
func (h History) MarshalText() ([]byte, error) {
	return text.AppendEncode(nil, AppendHistory(nil, h)), nil
}

// UnmarshalText reads what MarshalText gave, and nothing else. On an error,
// ErrMalformed or ErrLimit, it leaves h alone.
func (h *History) UnmarshalText(b []byte) error {
	raw, err := text.AppendDecode(nil, b)
	// The decoder skips line ends, which the length gives away.
	if err != nil || text.EncodedLen(len(raw)) != len(b) {
		return fmt.Errorf("%w: not the text of a version", ErrMalformed)
	}
	g, err := DecodeHistory(raw)
	if err != nil {
		return err
	}
	*h = g
	return nil
}
