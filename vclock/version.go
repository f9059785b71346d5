package vclock

// A Version is what one author has seen of a key: the history of what it read
// and, where it wrote without seeing everything that was there, the dot of its
// own last write.
//
// The dot stands apart because the history cannot always take it in. An entry
// (n, a) of V claims all earlier dots of a, and among those may be a sibling that
// another author wrote through the same actor. A version that claimed it would
// supersede, with the author's next write, a value that nobody had seen.
//
// Invariant: Past does not contain Own, unless Own is zero (there is none).
type Version struct {
	Past History
	Own  Dot
}

// Contains reports whether the author has seen d.
func (v Version) Contains(d Dot) bool {
	return d == v.Own || v.Past.Contains(d)
}

// Covers reports whether v's author has seen all that w's has.
func (v Version) Covers(w Version) bool {
	return v.Past.Covers(w.Past) && v.Contains(w.Own)
}

// Compare says how v relates to w.
func (v Version) Compare(w Version) Order { return order(v.Covers(w), w.Covers(v)) }

// Equal reports whether both have seen the same.
func (v Version) Equal(w Version) bool { return v.Own == w.Own && v.Past.Equal(w.Past) }

// Max returns the greatest dot seen: a causal write after v is stamped above it.
func (v Version) Max() Dot {
	if top := v.Past.Max(); v.Own.Less(top) {
		return top
	}
	return v.Own
}

// String gives the history, and the author's own dot after a plus sign.
func (v Version) String() string {
	if v.Own.IsZero() {
		return v.Past.String()
	}
	return v.Past.String() + " + " + v.Own.String()
}

// Replace is Set.Write for an author who holds a version: w supersedes what v has
// seen. It also returns the version that the author then holds, which has seen w
// and never a sibling that v had not.
//
// If this replica does not know v.Own, that value stays beside w until somebody
// reads and replaces both: a sibling too many, but no write lost.
func (s Set) Replace(v Version, w Sibling) (Set, Version) {
	past := v.Past
	if s.Contains(v.Own) {
		s = s.without(v.Own)
		past = past.Add(v.Own)
	}
	s = s.Write(v.Past, w)
	// What past claims beyond v is in the history of s. It is superseded there
	// already, or a sibling: only then the author must not claim it.
	past = past.Add(w.Dot)
	for _, other := range s.Siblings[1:] {
		if past.Contains(other.Dot) {
			return s, Version{v.Past, w.Dot}
		}
	}
	return s, Version{Past: past}
}

// without returns s with the sibling of d superseded.
func (s Set) without(d Dot) Set {
	var kept []Sibling
	for _, w := range s.Siblings {
		if w.Dot != d {
			kept = append(kept, w)
		}
	}
	return Set{s.History, kept}
}
