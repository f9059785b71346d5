package transport

import (
	"context"
	"errors"
	"net"
)

// Stream is a Transport over byte streams: frames and handshake are those of
// PROTOCOL.md. TCP is one; Unix sockets, or a faulty wire for tests, are others.
type Stream struct {
	Listen func(addr string) (net.Listener, error)
	Dial   func(ctx context.Context, addr string) (net.Conn, error)
}

// Open opens an endpoint.
func (s Stream) Open(cfg Config) (Endpoint, error) {
	return nil, errors.New("transport: not yet")
}
