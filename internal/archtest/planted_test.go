package archtest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests below plant violations and see that they are found, and that what
// is allowed is not.

const self = "example.org/store"

var someRequires = []requirement{
	{"github.com/cespare/xxhash/v2", "v2.3.0"},
	{"github.com/stretchr/testify", "v1.12.1"},
	{"golang.org/x/sys", "v0.49.0"},
	{"pgregory.net/rapid", "v1.3.0"},
}

// importing makes the text of a file that imports the given paths.
func importing(paths ...string) string {
	var text strings.Builder
	text.WriteString("package p\n")
	for _, p := range paths {
		text.WriteString("import _ \"" + p + "\"\n")
	}
	return text.String()
}

func TestPlantedImports(t *testing.T) {
	for _, c := range []struct {
		name, imports, want string // want "" is allowed
	}{
		{"ring/arc.go", "github.com/cespare/xxhash/v2", ""},
		{"ring/arc.go", "fmt", ""},
		{"lsm/tree.go", self + "/lsm/vfs", ""},
		{"lsm/tree_test.go", "pgregory.net/rapid", ""},
		{"node.go", self + "/transport", ""},
		{"example_test.go", self, ""},
		{"client/client.go", self, ""},
		{"examples/cart/main.go", self, ""},
		{"lsm/vfs/os.go", "golang.org/x/sys/unix", ""},

		{"replica/read.go", self + "/transport", "imports transport, an edge that the import graph does not have"},
		{"replica/read_test.go", self + "/transport", "an edge that the import graph does not have"},
		{"gossip/gossip.go", self + "/transport", "an edge that the import graph does not have"},
		{"gossip/gossip.go", "net", "gossip does no I/O"},
		{"topology/agent.go", "os/exec", "topology does no I/O"},
		{"lsm/tree.go", self, "imports the root package; only client, gateway"},
		{"lsm/tree_test.go", self, "imports the root package"},
		{"node.go", self + "/kvtest", "imports kvtest, an edge"},
		{"node.go", self + "/client", "imports client, an edge"},
		{"vclock/dot.go", "github.com/cespare/xxhash/v2", "of module github.com/cespare/xxhash/v2; decide it in docs/dependencies.md"},
		{"vclock/dot.go", "pgregory.net/rapid", "of module pgregory.net/rapid"},
		{"vclock/dot_test.go", "github.com/spf13/cobra", "imports github.com/spf13/cobra of module"},
		{"storage/disk.go", "fmt", "package storage is not in the import graph"},
		{"lsm/internal/journal/journal.go", "fmt", "package lsm/internal/journal is not in the import graph"},
	} {
		violations := checkImports(parse(t, c.name, importing(c.imports)), self, someRequires)
		if c.want == "" {
			require.Empty(t, violations, "%s importing %s", c.name, c.imports)
			continue
		}
		require.Len(t, violations, 1, "%s importing %s", c.name, c.imports)
		require.Contains(t, violations[0], c.want)
		require.Contains(t, violations[0], c.name)
	}
}

func TestPlantedLinkedModules(t *testing.T) {
	nine := strings.Fields("a.x b.x c.x d.x e.x f.x g.x h.x i.x")
	require.Empty(t, checkLinked(append(nine, "a.x", self, "b.x"), self))
	require.Contains(t, checkLinked(append(nine, "j.x"), self), "links 10 third-party modules")
	require.Contains(t, checkLinked([]string{rapid}, self), "which is for tests")
}

func TestPlantedBans(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"lsm/tree.go", `import "time"; var now = time.Now`, 1},
		{"lsm/tree.go", `import "time"; func f(t time.Time) time.Duration { return time.Since(t) }`, 1},
		{"lsm/tree.go", `import clock "time"; func f() { clock.Now() }`, 1},
		{"lsm/tree.go", `import . "time"; func f() { Now() }`, 1},
		{"lsm/tree.go", `import "time"; func f() { time.AfterFunc(time.Second, nil).Stop() }`, 0},
		{"lsm/tree.go", `import _ "time"; func f(time T) { time.Now() }`, 1}, // the blank import itself
		{"lsm/tree.go", `import "time"; var _ time.Time; func f(time T) { time.Now() }`, 0},
		{"ring/arc.go", `import "math/rand/v2"; func f() int { return rand.IntN(3) }`, 1},
		{"ring/arc.go", `import "math/rand/v2"; func f(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }`, 0},
		{"node.go", `import "crypto/rand"; func f(b []byte) { rand.Read(b) }`, 1},
		{"lsm/tree.go", `import "os"; func f() { os.Remove("x"); os.Exit(1) }`, 1},
		{"lsm/tree.go", `import "path/filepath"; func f() { filepath.Join("a", "b"); filepath.Glob("*") }`, 1},
		{"lsm/wal.go", `import "golang.org/x/sys/unix"; func f() { unix.Fdatasync(3) }`, 1},
		{"lsm/wal.go", `import "syscall"; func f() { syscall.Fsync(3) }`, 1},
		{"lsm/wal.go", `import "syscall"; var full = syscall.ENOSPC; var raw syscall.RawConn`, 0},
		{"node.go", `import "net"; func f() { net.Dial("tcp", ""); net.Listen("tcp", "") }`, 1},
		{"node.go", `import "net"; func f() string { var c net.Conn; var l net.Listener; _, _ = c, l; return net.JoinHostPort("a", "1") }`, 0},
		{"node.go", `import "net"; var d net.Dialer`, 1},
		{"admin/admin.go", `import "net/http"; func f(h http.Handler) { http.ListenAndServe("", h) }`, 1},
		{"admin/admin.go", `import "net/http"; func f(w http.ResponseWriter, r *http.Request) { http.Error(w, "", http.StatusTeapot) }`, 0},
		{"examples/embed/main.go", `import "os"; func f() { os.Exit(1) }`, 0},
		{"examples.go", `import "os"; func f() { os.Exit(1) }`, 1},
	} {
		violations := checkBans(parse(t, c.name, "package p; "+c.text), map[string]bool{})
		require.Len(t, violations, c.want, "%s: %s: %v", c.name, c.text, violations)
		for _, v := range violations {
			require.Contains(t, v, c.name+":1: ")
			require.Contains(t, v, "internal/archtest/ban_test.go")
		}
	}
}

// A permission holds for the file and the package it names, and its use is noted.
func TestPlantedPermit(t *testing.T) {
	permits["planted.go"] = permit{[]string{"os"}, "for this test"}
	t.Cleanup(func() { delete(permits, "planted.go") })
	text := `package p; import ("os"; "time"); func f() { os.Exit(1); time.Now() }`

	used := map[string]bool{}
	require.Len(t, checkBans(parse(t, "planted.go", text), used), 1)
	require.Equal(t, map[string]bool{"planted.go os": true}, used)
	require.Len(t, checkBans(parse(t, "lsm/planted.go", text), used), 2)
}

func TestPlantedDependencies(t *testing.T) {
	module, requires := parseGoMod(`module example.org/store

go 1.26.0

require alone.org/a v1.0.0

require (
	block.org/b/v2 v2.1.0
	indirect.org/c v0.3.0 // indirect
)

replace alone.org/a => ../a
`)
	require.Equal(t, self, module)
	require.Equal(t, []requirement{{"alone.org/a", "v1.0.0"}, {"block.org/b/v2", "v2.1.0"}, {"indirect.org/c", "v0.3.0"}}, requires)

	rows := "| module | version | why |\n|---|---|---|\n| `alone.org/a` | v1.0.0 | x |\n| `block.org/b/v2` | v2.1.0 | x |\n"
	require.Equal(t, []string{"docs/dependencies.md has no row for indirect.org/c; say why it is needed, its licence and what it links"}, checkDependencies(rows, requires))
	rows += "| `indirect.org/c` | v0.2.0 | x |\n| `gone.org/d` | v1.0.0 | x |\n"
	require.Equal(t, []string{"docs/dependencies.md says indirect.org/c v0.2.0, go.mod has v0.3.0", "docs/dependencies.md explains gone.org/d, which go.mod does not require"}, checkDependencies(rows, requires))
}
