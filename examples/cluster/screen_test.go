package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is painted fits the width, is painted over, and ends with all of it.
func TestScreen(t *testing.T) {
	n := service(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"Metrics": {"Gets": 1234, "WriteBacks": 7}}`))
	})
	n.config.ID = "n1"
	_, p := n.state()
	p.cmd = &exec.Cmd{Process: &os.Process{Pid: 4711}}
	tr := tourOf(t, n)
	var out bytes.Buffer
	s := newScreen(&out, tr)
	tr.progress.started([]*node{n})
	tr.progress.begin("store")
	tr.progress.end(strings.Repeat("long ", 30) + "end")
	tr.progress.begin("read")
	tr.progress.expect(10)
	tr.progress.done.Store(5)
	s.paint(false)
	first := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, l := range first {
		l = strings.NewReplacer(clearLine, "", bold, "", plain, "").Replace(l)
		require.Less(t, len([]rune(l)), width, l)
	}
	require.Contains(t, out.String(), "4711")
	require.Contains(t, out.String(), "1,234")
	require.Contains(t, out.String(), "[===============               ] 5 of 10")

	out.Reset()
	s.open()
	s.close()
	require.True(t, strings.HasPrefix(out.String(), hideCursor+"\x1b["), "it moves up first")
	require.Contains(t, out.String(), "long end")
	require.True(t, strings.HasSuffix(out.String(), showCursor))
}
