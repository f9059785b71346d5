package transport

import (
	"context"
	"net"
)

// TCP is the transport between real nodes. Addresses are host:port.
func TCP() Transport {
	var d net.Dialer
	return Stream{
		Listen: func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) },
		Dial:   func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) },
	}
}
