package archtest

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A ban is a standard package whose direct use makes code depend on the machine
// it runs on, so that no simulation can hold it.
type ban struct {
	banned  func(name string) bool
	instead string
}

const (
	useClock   = "take now time.Time as an argument, or the clock of the options; timers of package time are fine"
	useSeed    = "take a seeded source from the options"
	useVFS     = "go through lsm/vfs"
	useNetwork = "go through transport"
)

// bans by import path.
var bans = map[string]ban{
	"time":          {names("Now", "Since", "Until"), useClock},
	"math/rand":     {except("New", "NewSource", "NewZipf", "Rand", "Source", "Source64", "Zipf"), useSeed},
	"math/rand/v2":  {except("New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"), useSeed},
	"crypto/rand":   {except(), useSeed},
	"os":            {except(), useVFS},
	"os/exec":       {except(), "start no process"},
	"os/signal":     {except(), "signals belong to the program that embeds kvstore"},
	"os/user":       {except(), "ask nothing about the user"},
	"io/ioutil":     {except(), useVFS},
	"path/filepath": {names("Abs", "EvalSymlinks", "Glob", "Walk", "WalkDir"), useVFS},
	"net": {func(name string) bool {
		return prefixed(name, "Dial", "Listen", "Lookup", "Resolve", "File", "Interface", "DefaultResolver") && name != "Listener"
	}, useNetwork},
	"net/http": {names("DefaultClient", "DefaultTransport", "Get", "Head", "ListenAndServe", "ListenAndServeTLS", "Post", "PostForm",
		"Serve", "ServeTLS", "Server", "Client", "Transport"), "handlers serve, programs listen"},
	"crypto/tls": {names("Dial", "DialWithDialer", "Dialer", "Listen", "LoadX509KeyPair"), useNetwork},
	"syscall": {func(name string) bool { // error numbers and the interfaces of net are plain values
		return !errno.MatchString(name) && name != "RawConn" && name != "Conn"
	}, "use lsm/vfs or transport"},
	xsys: {except(), "use lsm/vfs or transport"},
}

var errno = regexp.MustCompile(`^(E[A-Z0-9]+|Errno)$`)

func names(list ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(list, name) }
}

func except(list ...string) func(string) bool {
	return func(name string) bool { return !slices.Contains(list, name) }
}

func prefixed(name string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// A permit lets a file, or with "/..." a directory, use banned packages.
type permit struct {
	packages []string
	reason   string
}

// permits are the few places where the outside world begins.
var permits = map[string]permit{
	"clock.go":                 {[]string{"time"}, "the default of Options.Clock"},
	"kvstore.go":               {[]string{"math/rand/v2"}, "the default of Options.Seed"},
	"seeds.go":                 {[]string{"net"}, "seeds may be names in the DNS"},
	"lsm/clock.go":             {[]string{"time"}, "the default clock of a tree that is used alone"},
	"lsm/random.go":            {[]string{"crypto/rand"}, "the default source of what nobody may foresee"},
	"lsm/vfs/os.go":            {[]string{"os"}, "the real file system"},
	"lsm/vfs/os_linux.go":      {[]string{"os", xsys}, "the real file system: fdatasync, fallocate"},
	"lsm/vfs/os_other.go":      {[]string{"os"}, "the real file system, where nothing better is known"},
	"lsm/vfs/os_unix.go":       {[]string{"os", xsys}, "the real file system: flock, statfs"},
	"lsm/vfs/os_windows.go":    {[]string{"os", xsys}, "the real file system: locks, free space"},
	"transport/real.go":        {[]string{"time", "crypto/rand"}, "the real clock and nonces of the handshake"},
	"transport/direct_unix.go": {[]string{"syscall"}, "a write to a socket that never waits"},
	"transport/tcp.go":         {[]string{"net"}, "the real network"},
	"kvtest/...":               {[]string{"time", "os"}, "a test kit: in its bubble the time is simulated, and the process is the test's own"},

	"lsm/internal/offheap/mmap.go":       {[]string{xsys}, "memory from the operating system"},
	"lsm/internal/offheap/huge_linux.go": {[]string{xsys, "time"}, "memory from the operating system, in huge pages, and how long one takes"},

	"examples/...": {[]string{"*"}, "programs: they own their process"},
	"cmd/...":      {[]string{"*"}, "programs: they own their process"},
}

// TestBans looks for direct use of clock, chance, disk and network.
func TestBans(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, violation := range checkBans(s, used) {
			t.Error(violation)
		}
	}
	for name, p := range permits {
		for _, banned := range p.packages {
			if !strings.HasSuffix(name, "/...") && !used[name+" "+banned] {
				t.Errorf("permits in internal/archtest/ban_test.go: %s does not use %s any more; remove the permission", name, banned)
			}
		}
	}
}

// checkBans reports the first use of each banned package in a file and notes in used, as "file
// package", each permission that was needed.
func checkBans(s source, used map[string]bool) []string {
	var violations []string
	seen := map[string]bool{}
	report := func(where ast.Node, banned, what string) {
		if permitted(s.name, banned) {
			used[s.name+" "+banned] = true
			return
		}
		if seen[banned] {
			return
		}
		seen[banned] = true
		violations = append(violations, fmt.Sprintf("%s: %s: %s. A file that implements the real thing is listed, with its reason, in permits in internal/archtest/ban_test.go",
			s.line(where.Pos()), what, bans[banned].instead))
	}

	local := map[string]string{} // name in this file -> banned package
	for _, spec := range s.ast.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err)
		}
		banned, ok := banOf(imported)
		if !ok {
			continue
		}
		name := path.Base(imported)
		if name == "v2" {
			name = path.Base(path.Dir(imported))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." || name == "_" {
			report(spec, banned, fmt.Sprintf("imports %s as %q", imported, name))
			continue
		}
		local[name] = banned
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := selector.X.(*ast.Ident)
		if !ok || x.Obj != nil { // x is declared in this file, not imported
			return true
		}
		if banned, ok := local[x.Name]; ok && bans[banned].banned(selector.Sel.Name) {
			report(selector, banned, "uses "+x.Name+"."+selector.Sel.Name)
		}
		return true
	})
	return violations
}

// banOf gives the key in bans that covers an import path.
func banOf(imported string) (string, bool) {
	if strings.HasPrefix(imported, xsys+"/") {
		imported = xsys
	}
	_, ok := bans[imported]
	return imported, ok
}

// permitted tells whether the file may use the banned package.
func permitted(name, imported string) bool {
	for pattern, p := range permits {
		if matches(name, []string{pattern}) && (slices.Contains(p.packages, imported) || slices.Contains(p.packages, "*")) {
			return true
		}
	}
	return false
}
