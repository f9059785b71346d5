//go:build !unix

package transport

import "net"

// directWriter is not there: the writer goroutine writes everything.
type directWriter struct{}

func newDirectWriter(net.Conn) *directWriter { return nil }

func (*directWriter) write([]byte) (int, error) { panic("transport: no direct writes here") }
