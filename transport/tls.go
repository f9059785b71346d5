package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

const alpn = "kvstore"

// tlsConfig hardens a copy of the caller's configuration: TLS 1.3, our protocol
// name, certificates on both sides.
func tlsConfig(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{alpn}
	if c.ClientAuth != tls.RequireAnyClientCert { // which leaves the check to a callback
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if c.ClientCAs == nil {
		c.ClientCAs = c.RootCAs
	}
	return c
}

// secure runs the TLS handshake on nc; without a configuration it gives nc back.
func secure(ctx context.Context, nc net.Conn, c *tls.Config, addr string, dialer bool) (net.Conn, error) {
	if c == nil {
		return nc, nil
	}
	var tc *tls.Conn
	if dialer {
		if c.ServerName == "" {
			c = c.Clone()
			c.ServerName = host(addr)
		}
		tc = tls.Client(nc, c)
	} else {
		tc = tls.Server(nc, c)
	}
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	if p := tc.ConnectionState().NegotiatedProtocol; p != alpn {
		return nil, fmt.Errorf("%w: the peer offers the protocol %q", ErrTLS, p)
	}
	return tc, nil
}

// tlsAlert marks the refusal of our certificate: in TLS 1.3 a dialer learns of it
// only when it reads.
func tlsAlert(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return err
}

// host is the host part of an address, or all of it.
func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}
