//go:build unix

package transport

import (
	"net"
	"syscall"
)

// directWriter writes to a socket without ever waiting for it. The runtime has
// made the socket non-blocking, so a plain write system call says how much fits.
type directWriter struct {
	raw syscall.RawConn
	do  func(fd uintptr) // bound once, so that a write allocates nothing
	b   []byte
	n   int
	err error
}

// newDirectWriter gives nil if nc is not a socket: TLS, or a stream in memory.
func newDirectWriter(nc net.Conn) *directWriter {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	d := &directWriter{raw: raw}
	d.do = d.writeTo
	return d
}

// write writes as much of b as fits now. Control, unlike RawConn.Write, takes no
// lock and looks at no deadline; the owner of out.writing is alone here.
func (d *directWriter) write(b []byte) (int, error) {
	d.b, d.n, d.err = b, 0, nil
	err := d.raw.Control(d.do)
	d.b = nil
	if err != nil {
		return d.n, err
	}
	return d.n, d.err
}

func (d *directWriter) writeTo(fd uintptr) {
	for d.n < len(d.b) {
		n, err := syscall.Write(int(fd), d.b[d.n:])
		if n > 0 {
			d.n += n
		}
		switch err {
		case nil:
		case syscall.EINTR:
		case syscall.EAGAIN:
			return
		default:
			d.err = err
			return
		}
	}
}
