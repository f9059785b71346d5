package transporttest_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"example.com/kvstore/transport"
	"example.com/kvstore/transport/transporttest"
)

func TestTCP(t *testing.T) {
	transporttest.Run(t, func(*testing.T) transporttest.Nodes {
		return func() (transport.Transport, string) { return transport.TCP(), "127.0.0.1:0" }
	})
}

// numbered gives nodes with the addresses node-1, node-2 and so on.
func numbered(of func(name string) transport.Transport) transporttest.Nodes {
	n := 0
	return func() (transport.Transport, string) {
		n++
		name := fmt.Sprintf("node-%d", n)
		return of(name), name
	}
}

func TestNetwork(t *testing.T) {
	transporttest.Run(t, func(*testing.T) transporttest.Nodes {
		return numbered(transport.NewNetwork(nil).Transport)
	})
}

// Delays put messages out of order, which the suite does not mind.
func TestNetworkWithDelays(t *testing.T) {
	transporttest.Run(t, func(*testing.T) transporttest.Nodes {
		return numbered(transport.NewNetwork(&transport.NetworkOptions{
			Fate: transport.Chances{Seed: 1, MaxDelay: 2 * time.Millisecond}.Fate}).Transport)
	})
}

func TestWire(t *testing.T) {
	transporttest.Run(t, func(*testing.T) transporttest.Nodes {
		w := &transporttest.Wire{}
		return numbered(func(string) transport.Transport { return w.Transport() })
	})
}

func TestUnixSockets(t *testing.T) {
	var d net.Dialer
	unix := transport.Stream{
		Listen: func(addr string) (net.Listener, error) { return net.Listen("unix", addr) },
		Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "unix", addr) },
	}
	transporttest.Run(t, func(t *testing.T) transporttest.Nodes {
		dir, n := t.TempDir(), 0
		return func() (transport.Transport, string) {
			n++
			return unix, filepath.Join(dir, fmt.Sprint(n))
		}
	})
}
