package vclock

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAlternateWriters is the sibling explosion of plain version vectors: two
// authors write in turn through one actor, each with what its own last write
// gave it. Every write stays beside the other's last one, and beside nothing
// else; and no write supersedes what its author had not seen.
func TestAlternateWriters(t *testing.T) {
	var s Set
	var author [2]Version
	for n := range uint64(1000) {
		s, author[n%2] = s.Replace(author[n%2], Sibling{Dot: Dot{n + 1, 7}})
		if n > 0 {
			require.Len(t, s.Siblings, 2)
			require.Equal(t, Dot{n, 7}, s.Siblings[1].Dot)
		}
	}
	s, v := s.Replace(Version{Past: s.History}, Sibling{Dot: Dot{1001, 7}})
	require.Len(t, s.Siblings, 1)
	require.Zero(t, v.Own)
	require.True(t, v.Past.Equal(s.History))
}

// TestOwnDotJoinsTheHistory once no sibling stands in its way.
func TestOwnDotJoinsTheHistory(t *testing.T) {
	s, _ := Set{}.Replace(Version{}, Sibling{Dot: Dot{1, 1}})
	first := s.History
	s, v := s.Replace(Version{}, Sibling{Dot: Dot{2, 1}})
	require.Equal(t, Version{Own: Dot{2, 1}}, v, "1@1 is a sibling that the author did not see")

	s, _ = s.Replace(Version{Past: first}, Sibling{Dot: Dot{3, 2}})
	require.Equal(t, "0@0 [2@1 3@2] {3@2 2@1}", s.String())
	s, w := s.Replace(v, Sibling{Dot: Dot{4, 3}})
	require.Equal(t, "0@0 [2@1 3@2 4@3] {4@3 3@2}", s.String())
	require.Equal(t, "0@0 [2@1 4@3]", w.String())
	require.True(t, w.Covers(v))
}

// TestReplaceLosesNothing lets authors read, and write with the versions that
// reads and writes gave them, at replicas that join now and then. Against the
// dots that each author really saw, no write disappears unless one that had seen
// it was made; and with a single replica there are never more siblings than
// authors.
func TestReplaceLosesNothing(t *testing.T) {
	const authors = 3
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.IntRange(1, 3).Draw(t, "replicas")
		sets := make([]Set, replicas)
		knows := make([]map[Dot]bool, replicas)
		for i := range knows {
			knows[i] = map[Dot]bool{}
		}
		var versions [authors]Version
		saw := [authors]map[Dot]bool{{}, {}, {}}
		written, superseded := map[Dot]bool{}, map[Dot]bool{}
		add := func(to, from map[Dot]bool) {
			for d := range from {
				to[d] = true
			}
		}
		for n := range uint64(rapid.IntRange(1, 30).Draw(t, "steps")) {
			i := rapid.IntRange(0, replicas-1).Draw(t, "replica")
			a := rapid.IntRange(0, authors-1).Draw(t, "author")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0: // read
				versions[a], saw[a] = Version{Past: sets[i].History}, map[Dot]bool{}
				add(saw[a], knows[i])
			case 1:
				k := rapid.IntRange(0, replicas-1).Draw(t, "to")
				sets[k] = Join(sets[k], sets[i])
				add(knows[k], knows[i])
			default:
				d := Dot{n + 1, uint64(i)}
				add(superseded, saw[a])
				written[d], knows[i][d], saw[a][d] = true, true, true
				sets[i], versions[a] = sets[i].Replace(versions[a], Sibling{Dot: d})
				require.True(t, versions[a].Contains(d))
			}
			var all Set
			for _, s := range sets {
				require.Empty(t, structure(s))
				all = Join(all, s)
			}
			for d := range written {
				require.True(t, all.has(d) || superseded[d], "%v is lost", d)
			}
			if replicas == 1 {
				require.LessOrEqual(t, len(all.Siblings), authors)
			}
		}
	})
}

func TestVersionOrder(t *testing.T) {
	past := History{}.Add(Dot{4, 1})
	v, w := Version{Past: past}, Version{Past: past, Own: Dot{9, 1}}
	require.Equal(t, Before, v.Compare(w))
	require.Equal(t, After, w.Compare(v))
	require.Equal(t, Concurrent, w.Compare(Version{Past: past, Own: Dot{8, 1}}))
	require.Equal(t, Before, w.Compare(Version{Past: past.Add(Dot{9, 1})}))
	require.True(t, w.Equal(w))
	require.False(t, w.Equal(v))
	require.Equal(t, Dot{4, 1}, v.Max())
	require.Equal(t, Dot{9, 1}, w.Max())
	require.Equal(t, "0@0 [4@1] + 9@1", w.String())
}

func TestText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := Version{Past: drawSet(t).History, Own: Dot{rapid.Uint64().Draw(t, "stamp"), 3}}
		if v.Past.Contains(v.Own) {
			v.Own = Dot{}
		}
		b, err := v.MarshalText()
		require.NoError(t, err)
		require.Regexp(t, `^[0-9A-Za-z_-]+$`, string(b))
		var u Version
		require.NoError(t, u.UnmarshalText(b))
		require.True(t, v.Equal(u))

		var h History
		err = h.UnmarshalText(b)
		if v.Own.IsZero() {
			require.NoError(t, err)
			require.True(t, h.Equal(v.Past))
			again, err := h.MarshalText()
			require.NoError(t, err)
			require.Equal(t, b, again)
		} else {
			require.ErrorIs(t, err, ErrMalformed)
			require.True(t, h.Equal(History{}))
		}
	})
}

// TestTextIsStrict: a text that differs in any byte is another version or none.
func TestTextIsStrict(t *testing.T) {
	v := Version{Past: History{Floor: Dot{5, 1}}.Add(Dot{7, 2}), Own: Dot{9, 2}}
	b, err := v.MarshalText()
	require.NoError(t, err)
	for i := range b {
		for c := range 256 {
			m := append([]byte(nil), b...)
			m[i] = byte(c)
			var u Version
			if u.UnmarshalText(m) == nil {
				require.Equal(t, c == int(b[i]), u.Equal(v))
			}
		}
		var u Version
		require.ErrorIs(t, u.UnmarshalText([]byte(string(b[:i])+"\n"+string(b[i:]))), ErrMalformed)
		require.Zero(t, u)
		if u.UnmarshalText(b[:i]) == nil { // cut where the history ends
			require.Equal(t, Version{Past: v.Past}, u)
		}
	}
	// A dot of its own that the history contains would be a second text.
	twice := text.AppendEncode(nil, appendDot(AppendHistory(nil, v.Past), Dot{6, 2}))
	require.ErrorIs(t, new(Version).UnmarshalText(twice), ErrMalformed)
}
