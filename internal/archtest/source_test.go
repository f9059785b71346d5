package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the module's directory, seen from this package.
const root = "../.."

// A source is one parsed Go file of the module.
type source struct {
	name string // slash-separated, below the module's root
	fset *token.FileSet
	ast  *ast.File
}

// pkg is the directory of the file's package: "." for the root package.
func (s source) pkg() string { return path.Dir(s.name) }

func (s source) test() bool { return strings.HasSuffix(s.name, "_test.go") }

// line gives the place of p for a message.
func (s source) line(p token.Pos) string {
	return s.name + ":" + strconv.Itoa(s.fset.Position(p).Line)
}

// imports gives the paths that the file imports.
func (s source) imports() []string {
	var paths []string
	for _, spec := range s.ast.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser accepted it
		}
		paths = append(paths, p)
	}
	return paths
}

// parse makes a source of a file's text.
func parse(t *testing.T, name string, text any) source {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
	if err != nil {
		t.Fatalf("archtest: %v", err)
	}
	return source{name, fset, file}
}

// sources parses every Go file of the module, whatever its build constraints.
// Nested modules and testdata are not part of it.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			if rel != "." && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") || strings.HasPrefix(entry.Name(), "_")) {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && rel != "." {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(rel, ".go") {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			all = append(all, parse(t, rel, text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A requirement is one line of go.mod.
type requirement struct{ path, version string }

// goMod reads the module's path and its requirements.
func goMod(t *testing.T) (string, []requirement) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	return parseGoMod(string(text))
}

// parseGoMod understands what "go mod tidy" writes: a module line, and
// requirements alone or in blocks.
func parseGoMod(text string) (module string, requires []requirement) {
	block := false
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "module":
			module = words[1]
		case slices.Equal(words, []string{"require", "("}):
			block = true
		case words[0] == ")":
			block = false
		case block && len(words) == 2:
			requires = append(requires, requirement{words[0], words[1]})
		case words[0] == "require" && len(words) == 3:
			requires = append(requires, requirement{words[1], words[2]})
		}
	}
	return module, requires
}
