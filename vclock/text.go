package vclock

import (
	"encoding/base64"
	"fmt"
)

// text is strict: one text for one encoding. All of it are letters, digits,
// minus and underscore, so that it may stand in a URL, or between quotes as an
// HTTP entity tag.
var text = base64.RawURLEncoding.Strict()

// MarshalText gives the history as letters, digits, minus and underscore: 24 of
// them for a plain write, 64 more for every 3 entries of V. It is canonical.
func (h History) MarshalText() ([]byte, error) {
	return text.AppendEncode(nil, AppendHistory(nil, h)), nil
}

// UnmarshalText reads what MarshalText gave, and nothing else. On an error,
// ErrMalformed or ErrLimit, it leaves h alone.
func (h *History) UnmarshalText(b []byte) error {
	r := textReader(b)
	g := r.history()
	r.end()
	if r.err == nil {
		*h = g
	}
	return r.err
}

// MarshalText gives the version in the same form: the text of its history, with
// its own dot behind it if there is one.
func (v Version) MarshalText() ([]byte, error) {
	b := AppendHistory(nil, v.Past)
	if !v.Own.IsZero() {
		b = appendDot(b, v.Own)
	}
	return text.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText gave, and nothing else. On an error,
// ErrMalformed or ErrLimit, it leaves v alone.
func (v *Version) UnmarshalText(b []byte) error {
	r := textReader(b)
	u := Version{Past: r.history()}
	if r.off < len(r.b) {
		u.Own = r.dot()
		if u.Past.Contains(u.Own) {
			r.fail("a dot that the history contains")
		}
	}
	r.end()
	if r.err == nil {
		*v = u
	}
	return r.err
}

func textReader(b []byte) reader {
	raw, err := text.AppendDecode(nil, b)
	// The decoder skips line ends, which the length gives away.
	if err != nil || text.EncodedLen(len(raw)) != len(b) {
		return reader{err: fmt.Errorf("%w: not the text of a version", ErrMalformed)}
	}
	return reader{b: raw}
}
