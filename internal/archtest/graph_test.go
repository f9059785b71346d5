package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// Third-party modules by the name that the table uses.
const (
	bitset    = "github.com/bits-and-blooms/bitset"
	bloom     = "github.com/bits-and-blooms/bloom/v3"
	compress  = "github.com/klauspost/compress"
	goleak    = "go.uber.org/goleak"
	porcupine = "github.com/anishathalye/porcupine"
	rapid     = "pgregory.net/rapid"
	testify   = "github.com/stretchr/testify"
	xsync     = "golang.org/x/sync"
	xsys      = "golang.org/x/sys"
	xtime     = "golang.org/x/time"
	xxhash    = "github.com/cespare/xxhash/v2"
)

// testing libraries may be imported by every _test.go file and by nothing that
// the root package links.
var testLibraries = []string{goleak, porcupine, rapid, testify}

// edges says what a package may import besides the standard library.
type edges struct {
	imports []string // packages of this module, "." is the root
	modules []string // third-party modules
	tests   []string // what its _test.go files may import on top of both
}

// graph is who may import whom. A name ending in "/..." stands for all packages
// below that directory which have no line of their own. A package that does not
// exist yet may have its line already.
//
// A new edge is a decision: say why in docs/design/, then add it here.
var graph = map[string]edges{
	// Leaves: pure values, useful alone.
	"ring":   {modules: []string{xxhash}},
	"vclock": {},
	"merkle": {},
	"crdt":   {imports: []string{"vclock"}},

	// The storage engine.
	"lsm/vfs":                 {modules: []string{xsys}, tests: []string{"lsm/vfs/vfstest"}},
	"lsm/vfs/vfstest":         {imports: []string{"lsm/vfs"}, modules: []string{testify}},
	"lsm/internal/base":       {imports: []string{"vclock"}, modules: []string{xxhash}},
	"lsm/internal/wal":        {imports: []string{"vclock", "lsm/vfs", "lsm/internal/base", "lsm/internal/offheap"}},
	"lsm/internal/offheap":    {modules: []string{xsys}},
	"lsm/internal/memtable":   {imports: []string{"vclock", "lsm/internal/base", "lsm/internal/offheap"}},
	"lsm/internal/cache":      {imports: []string{"vclock", "lsm/internal/base", "lsm/internal/offheap"}},
	"lsm/internal/table":      {imports: []string{"vclock", "lsm/vfs", "lsm/internal/base", "lsm/internal/offheap"}, modules: []string{xxhash, bloom, bitset, compress}},
	"lsm/internal/manifest":   {imports: []string{"vclock", "lsm/vfs", "lsm/internal/base", "lsm/internal/table"}},
	"lsm/internal/compaction": {imports: []string{"vclock", "lsm/vfs", "lsm/internal/base", "lsm/internal/table", "lsm/internal/manifest"}},
	"lsm": {
		imports: []string{"vclock", "lsm/vfs", "lsm/internal/base", "lsm/internal/wal", "lsm/internal/memtable",
			"lsm/internal/table", "lsm/internal/manifest", "lsm/internal/compaction", "lsm/internal/offheap", "lsm/internal/cache"},
		modules: []string{xxhash, xsync, xtime},
		tests:   []string{compress}, // of the second reader of FORMAT.md
	},

	// Between nodes.
	"transport":               {tests: []string{"transport/transporttest"}},
	"transport/transporttest": {imports: []string{"transport"}, modules: []string{testify}},
	"gossip":                  {},
	"topology":                {imports: []string{"ring"}},
	"replica":                 {imports: []string{"ring", "vclock", "merkle", "topology"}},

	// The root wires the above.
	".": {
		imports: []string{"ring", "vclock", "merkle", "crdt", "lsm", "lsm/vfs", "transport", "gossip", "topology", "replica"},
		modules: []string{xxhash, xsync, xsys, xtime},
		tests:   []string{"kvtest", "internal/check"},
	},

	// Above the root.
	"client":       {imports: []string{".", "ring", "transport"}, tests: []string{"kvtest"}},
	"admin":        {imports: []string{"."}, tests: []string{"kvtest"}},
	"gateway":      {imports: []string{"."}, tests: []string{"kvtest"}},
	"kvtest":       {imports: []string{".", "ring", "vclock", "lsm/vfs", "transport", "internal/check"}, modules: []string{porcupine}},
	"cmd/...":      {imports: []string{".", "admin", "client", "gateway", "lsm", "ring"}},
	"examples/...": {imports: []string{".", "admin", "client", "crdt", "gateway", "kvtest"}},

	// Tests of the project itself.
	"internal/check":    {imports: []string{"vclock"}, modules: []string{porcupine}},
	"internal/archtest": {},
}

// aboveRoot are the only packages that may import the root package.
var aboveRoot = []string{"client", "gateway", "admin", "kvtest", "cmd/...", "examples/...", "bench/...", "contrib/..."}

// withoutIO are state machines and pure values: what they know of the world is
// handed to them, so they have no use for these.
var withoutIO = []string{"ring", "vclock", "merkle", "crdt", "gossip", "topology", "replica"}

var ioPackages = []string{"net", "os", "syscall", "crypto/rand"}

// TestImportGraph compares every import of the module with the table.
func TestImportGraph(t *testing.T) {
	module, requires := goMod(t)
	for _, s := range sources(t) {
		for _, violation := range checkImports(s, module, requires) {
			t.Error(violation)
		}
	}
}

// checkImports reports each import of the file that the table does not allow.
func checkImports(s source, module string, requires []requirement) []string {
	pkg := s.pkg()
	line, allowed, known := lookup(pkg)
	if !known {
		return []string{fmt.Sprintf("%s: package %s is not in the import graph; decide in docs/design/ who it may import and add it to graph in internal/archtest/graph_test.go", s.name, pkg)}
	}
	var violations []string
	add := func(format string, args ...any) {
		violations = append(violations, s.name+": "+fmt.Sprintf(format, args...))
	}
	for _, imported := range s.imports() {
		switch inside, isInside := within(imported, module); {
		case isInside:
			if inside == pkg || slices.Contains(allowed.imports, inside) || s.test() && slices.Contains(allowed.tests, inside) {
				continue
			}
			if inside == "." && !matches(pkg, aboveRoot) {
				add("imports the root package; only %s may: what it needs of the root belongs in a package below", strings.Join(aboveRoot, ", "))
				continue
			}
			add("imports %s, an edge that the import graph does not have; decide it in docs/design/, then add it to %q in internal/archtest/graph_test.go", inside, line)
		case standard(imported):
			if !s.test() && slices.Contains(withoutIO, pkg) && slices.ContainsFunc(ioPackages, func(p string) bool { return imported == p || strings.HasPrefix(imported, p+"/") }) {
				add("imports %s, but %s does no I/O: hand it what it needs", imported, pkg)
			}
		default:
			third := moduleOf(imported, requires)
			if slices.Contains(allowed.modules, third) || s.test() && (slices.Contains(testLibraries, third) || slices.Contains(allowed.tests, third)) {
				continue
			}
			add("imports %s of module %s; decide it in docs/dependencies.md, then add it to %q in internal/archtest/graph_test.go", imported, third, line)
		}
	}
	return violations
}

// lookup finds the line of a package: its own, or that of the closest directory
// with "/...".
func lookup(pkg string) (line string, e edges, ok bool) {
	if e, ok := graph[pkg]; ok {
		return pkg, e, true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if e, ok := graph[dir+"/..."]; ok {
			return dir + "/...", e, true
		}
	}
	return "", edges{}, false
}

// matches tells whether pkg is one of the patterns.
func matches(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		below, tree := strings.CutSuffix(p, "/...")
		return pkg == p || tree && strings.HasPrefix(pkg, below+"/")
	})
}

// within gives an import's directory in the module.
func within(imported, module string) (string, bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// standard tells whether an import path is of the standard library: its first
// element has no dot.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// moduleOf gives the required module that provides an import.
func moduleOf(imported string, requires []requirement) string {
	longest := ""
	for _, r := range requires {
		if (imported == r.path || strings.HasPrefix(imported, r.path+"/")) && len(r.path) > len(longest) {
			longest = r.path
		}
	}
	return longest
}

// maxLinked bounds the third-party modules that a service takes in with the
// root package.
const maxLinked = 9

// TestLinkedModules counts the modules that the root package links, tests aside.
func TestLinkedModules(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	module, _ := goMod(t)
	for _, goos := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		if violation := checkLinked(strings.Fields(string(out)), module); violation != "" {
			t.Errorf("GOOS=%s: %s", goos, violation)
		}
	}
}

// checkLinked judges the modules of "go list -deps", one per package.
func checkLinked(modules []string, self string) string {
	slices.Sort(modules)
	modules = slices.DeleteFunc(slices.Compact(modules), func(m string) bool { return m == self })
	for _, m := range modules {
		if slices.Contains(testLibraries, m) {
			return fmt.Sprintf("the root package links %s, which is for tests", m)
		}
	}
	if len(modules) > maxLinked {
		return fmt.Sprintf("the root package links %d third-party modules, at most %d are wanted (docs/dependencies.md): %s", len(modules), maxLinked, strings.Join(modules, " "))
	}
	return ""
}
