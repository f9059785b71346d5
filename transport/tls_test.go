package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority signs the certificates of one cluster.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, cert, key, pool}
}

// config gives a node's configuration; change may alter the certificate.
func (a *authority) config(change func(*x509.Certificate)) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	return &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	good := ours.config(nil)
	old := good.Clone()
	old.MaxVersion = tls.VersionTLS12
	naked := good.Clone()
	naked.Certificates = nil
	alien := others.config(nil)
	alien.RootCAs = ours.pool // it believes us
	for _, tt := range []struct {
		name string
		tls  *tls.Config // of the dialer
		key  string
		want error
	}{
		{"a member", good, "secret", nil},
		{"plain", nil, "secret", io.EOF}, // the listener does not say why
		{"TLS 1.2", old, "secret", ErrTLS},
		{"no certificate", naked, "secret", ErrTLS},
		{"a certificate of another authority", alien, "secret", ErrTLS},
		{"another authority altogether", others.config(nil), "secret", ErrTLS},
		{"an expired certificate", ours.config(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "secret", ErrTLS},
		{"a certificate for servers only", ours.config(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), "secret", ErrTLS},
		{"another key", good, "guess", ErrBadKey},
	} {
		srv := openMux(t, TCP(), MuxConfig{Listen: loopback, TLS: good, ClusterKey: []byte("secret"),
			Handle: func(r *Request) {
				if tt.want != nil {
					t.Errorf("%s: a request passed", tt.name)
				}
				echo(r)
			}})
		a := openMux(t, TCP(), MuxConfig{TLS: tt.tls, ClusterKey: []byte(tt.key)})
		w := &waiter{make(chan error, 1)}
		err := w.call(a.Peer(srv.Addr()), time.Time{}, nil, make([]byte, 100<<10))
		if tt.want == nil {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrDown, tt.name)
		require.ErrorIs(t, err, tt.want, tt.name)
	}

	// And the other way round: we speak TLS, the node that we dial does not.
	srv := openMux(t, TCP(), MuxConfig{Listen: loopback, Handle: echo})
	a := openMux(t, TCP(), MuxConfig{TLS: good})
	w := &waiter{make(chan error, 1)}
	require.ErrorIs(t, w.call(a.Peer(srv.Addr()), time.Time{}, nil, nil), ErrTLS)

	// A listener of the right authority that speaks something else.
	foreign := good.Clone()
	foreign.NextProtos = []string{"h2"}
	foreign.ClientAuth = tls.RequireAnyClientCert
	ln, err := tls.Listen("tcp", loopback, foreign)
	require.NoError(t, err)
	go func() {
		if nc, err := ln.Accept(); err == nil {
			nc.(*tls.Conn).Handshake()
			nc.Close()
		}
	}()
	require.ErrorIs(t, w.call(a.Peer(ln.Addr().String()), time.Time{}, nil, nil), ErrTLS)
	ln.Close()
}

func TestTLSConfigIsNotWrittenTo(t *testing.T) {
	var c tls.Config
	tlsConfig(&c)
	require.Zero(t, c.MinVersion)
	require.Nil(t, c.NextProtos)
}
