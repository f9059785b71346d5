package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDependenciesAreExplained wants a table row in docs/dependencies.md for
// every requirement of go.mod, with its version.
func TestDependenciesAreExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, requires := goMod(t)
	for _, violation := range checkDependencies(string(text), requires) {
		t.Error(violation)
	}
}

// checkDependencies compares the rows "| `path` | version | ..." with go.mod.
func checkDependencies(text string, requires []requirement) []string {
	versions := map[string]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		if name := strings.TrimSpace(cells[1]); strings.HasPrefix(name, "`") {
			versions[strings.Trim(name, "`")] = strings.TrimSpace(cells[2])
		}
	}
	var violations []string
	for _, r := range requires {
		version, ok := versions[r.path]
		switch {
		case !ok:
			violations = append(violations, fmt.Sprintf("docs/dependencies.md has no row for %s; say why it is needed, its licence and what it links", r.path))
		case version != r.version:
			violations = append(violations, fmt.Sprintf("docs/dependencies.md says %s %s, go.mod has %s", r.path, version, r.version))
		}
		delete(versions, r.path)
	}
	for name := range versions {
		violations = append(violations, fmt.Sprintf("docs/dependencies.md explains %s, which go.mod does not require", name))
	}
	return violations
}
