package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// shakeOver runs both sides of a handshake over a pipe.
func shakeOver(dialer, acceptor Config) (dialerErr, acceptorErr error) {
	a, b := net.Pipe()
	done := make(chan error)
	go func() {
		_, err := handshake(b, &acceptor, false)
		b.Close()
		done <- err
	}()
	_, dialerErr = handshake(a, &dialer, true)
	a.Close()
	return dialerErr, <-done
}

func TestHandshakeKeys(t *testing.T) {
	cfg := func(key string) Config { return Config{Identity: identity("n"), ClusterKey: []byte(key)} }
	for _, tt := range []struct {
		a, b string
		want error
	}{
		{"", "", nil},
		{"secret", "secret", nil},
		{"secret", "other", ErrBadKey},
		{"secret", "", ErrBadKey},
		{"", "secret", ErrBadKey},
	} {
		a, b := shakeOver(cfg(tt.a), cfg(tt.b))
		if tt.want == nil {
			require.NoError(t, a)
			require.NoError(t, b)
			continue
		}
		require.ErrorIs(t, a, tt.want, "dialer with %q, acceptor with %q", tt.a, tt.b)
		require.ErrorIs(t, b, tt.want, "dialer with %q, acceptor with %q", tt.a, tt.b)
	}
}

// A stranger who sends the acceptor's own words back, or those of an earlier
// handshake, proves nothing.
func TestHandshakeReplay(t *testing.T) {
	cfg := Config{Identity: identity("n"), ClusterKey: []byte("secret")}
	var recorded bytes.Buffer
	a, b := net.Pipe()
	go func() {
		handshake(b, &cfg, false)
		b.Close()
	}()
	_, err := handshake(recorder{a, &recorded}, &cfg, true)
	require.NoError(t, err)
	a.Close()

	c, d := net.Pipe()
	refused := make(chan error)
	go func() {
		_, err := handshake(d, &cfg, false)
		d.Close()
		refused <- err
	}()
	go c.Write(recorded.Bytes())
	answer, _ := io.ReadAll(c)
	require.ErrorIs(t, <-refused, ErrBadKey)
	require.EqualValues(t, verdictBadKey, answer[len(answer)-proofBytes])
	require.Equal(t, make([]byte, proofBytes-1), answer[len(answer)-proofBytes+1:], "no proof is given to a stranger")
	c.Close()
}

type recorder struct {
	net.Conn
	w io.Writer
}

func (r recorder) Write(b []byte) (int, error) {
	r.w.Write(b)
	return r.Conn.Write(b)
}

// Somebody in between who lowers a version range is noticed, key or no key.
func TestHandshakeTampering(t *testing.T) {
	cfg := Config{Identity: func() Identity { return Identity{MinVersion: 1, MaxVersion: 3} }}
	a, b := net.Pipe()
	done := make(chan error)
	go func() {
		_, err := handshake(b, &cfg, false)
		b.Close()
		done <- err
	}()
	_, err := handshake(&tamper{Conn: a, at: helloHeader + helloFixed + 2}, &cfg, true)
	require.ErrorIs(t, <-done, ErrBadKey)
	require.ErrorIs(t, err, ErrBadKey)
	a.Close()
}

// tamper lowers a byte of the first write.
type tamper struct {
	net.Conn
	at int
}

func (c *tamper) Write(b []byte) (int, error) {
	if b = bytes.Clone(b); c.at > 0 {
		b[c.at]--
		c.at = 0
	}
	return c.Conn.Write(b)
}

// Whatever answers instead of a kvstore node is told apart.
func TestHandshakeStrangers(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		want       error
	}{
		{"a web server", "HTTP/1.1 400 Bad Request\r\n\r\n", ErrNotKvstore},
		{"a mail server", "220 mail\r\n", ErrNotKvstore},
		{"a mute", "", io.EOF},
		{"a TLS listener", "\x15\x03\x01\x00\x02\x02\x46", ErrTLS},
		{"a TLS dialer", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ErrTLS},
		{"a hello that is too long", magic + "\xff\xff" + string(make([]byte, 300)), ErrCorrupt},
		{"a hello that is too short", magic + "\x01\x00" + string(make([]byte, 300)), ErrCorrupt},
	} {
		for _, dialer := range []bool{true, false} {
			a, b := net.Pipe()
			go func() {
				go io.Copy(io.Discard, b)
				io.WriteString(b, tt.says)
				b.Close()
			}()
			_, err := handshake(a, &Config{Identity: identity("n")}, dialer)
			require.ErrorIs(t, err, tt.want, tt.name)
			a.Close()
		}
	}
}

// A stranger gets no byte in answer.
func TestHandshakeSilentToStrangers(t *testing.T) {
	a, b := net.Pipe()
	go func() {
		_, err := handshake(b, &Config{Identity: identity("n")}, false)
		if !errors.Is(err, ErrNotKvstore) {
			t.Error(err)
		}
		b.Close()
	}()
	_, err := a.Write([]byte("GET / HTTP/1.1\r\n")[:helloHeader])
	require.NoError(t, err)
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Empty(t, got)
	a.Close()
}

func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		began := time.Now()
		e := &streamEndpoint{cfg: Config{Identity: identity("n")}}
		e.ctx = t.Context()
		c := newStreamConn(e, nil)
		go func() { // slow-loris
			for _, x := range []byte(magic + "\x50\x00") {
				time.Sleep(time.Second)
				if _, err := a.Write([]byte{x}); err != nil {
					return
				}
			}
		}()
		_, err := c.shake(b, "")
		require.Error(t, err)
		require.Equal(t, 5*time.Second, time.Since(began))
		b.Close()
		a.Close()
		c.cancel()
		time.Sleep(time.Second) // the stranger ends
	})
}

func FuzzHello(f *testing.F) {
	h, _ := appendHello(nil, hello{identity: Identity{Name: "orders", Node: "n1", Addr: "10.0.0.1:7000"}})
	f.Add(h)
	f.Add(h[:len(h)-1])
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= helloHeader && len(b) <= maxHello { // get past the magic and the length
			copy(b, magic)
			binary.LittleEndian.PutUint16(b[len(magic):], uint16(len(b)-helloHeader))
		}
		h, raw, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, raw) || len(raw) > maxHello {
			t.Fatal("the hello is not what was sent")
		}
		again, err := appendHello(nil, h)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again[helloHeader:], raw[helloHeader:min(len(raw), len(again))]) {
			t.Fatalf("%x became %x", raw, again)
		}
	})
}
