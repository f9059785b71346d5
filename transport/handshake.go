package transport

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// magic begins every hello, in all versions.
const magic = "kvstore\n"

const (
	// maxHello bounds a hello: all that is allocated for a peer that has not
	// proved anything yet.
	maxHello    = 4 << 10
	helloHeader = len(magic) + 2
	nonceBytes  = 32
	helloFixed  = 2 + nonceBytes // flags and nonce

	flagKeyed = 1
)

// Verdicts, part of the protocol: append only.
const (
	verdictOK           = 0
	verdictBadKey       = 1
	verdictWrongCluster = 2
	verdictVersion      = 3
)

const proofBytes = 1 + sha256.Size

const (
	dialerRole   = "kvstore dialer\n"
	acceptorRole = "kvstore acceptor\n"
)

// hello is the first thing each side says.
type hello struct {
	flags    uint16
	nonce    [nonceBytes]byte
	identity Identity
}

// appendHello appends
//
//	magic 8 | length 2 | flags 2 | nonce 32 | identity
func appendHello(dst []byte, h hello) ([]byte, error) {
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, 0, 0)
	dst = binary.LittleEndian.AppendUint16(dst, h.flags)
	dst = append(dst, h.nonce[:]...)
	dst, err := AppendIdentity(dst, h.identity)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint16(dst[start+len(magic):], uint16(len(dst)-start-helloHeader))
	return dst, nil
}

// readHello reads a hello and gives it also as it was sent.
func readHello(r io.Reader) (hello, []byte, error) {
	buf := make([]byte, helloHeader, 512)
	if n, err := io.ReadFull(r, buf); err != nil {
		if n > 0 && string(buf[:min(n, len(magic))]) != magic[:min(n, len(magic))] {
			return hello{}, nil, notKvstore(buf[:n])
		}
		return hello{}, nil, err
	}
	if string(buf[:len(magic)]) != magic {
		return hello{}, nil, notKvstore(buf)
	}
	n := int(binary.LittleEndian.Uint16(buf[len(magic):]))
	if n < helloFixed || helloHeader+n > maxHello {
		return hello{}, nil, fmt.Errorf("%w: hello of %d bytes", ErrCorrupt, n)
	}
	buf = append(buf, make([]byte, n)...)
	if _, err := io.ReadFull(r, buf[helloHeader:]); err != nil {
		return hello{}, nil, err
	}
	h, err := decodeHello(buf[helloHeader:])
	return h, buf, err
}

// decodeHello decodes what follows the length.
func decodeHello(b []byte) (hello, error) {
	if len(b) < helloFixed {
		return hello{}, fmt.Errorf("%w: hello of %d bytes", ErrCorrupt, len(b))
	}
	id, err := DecodeIdentity(b[helloFixed:])
	if err != nil {
		return hello{}, err
	}
	return hello{flags: binary.LittleEndian.Uint16(b), nonce: [nonceBytes]byte(b[2:]), identity: id}, nil
}

// notKvstore says what the peer seems to be by its first bytes.
func notKvstore(b []byte) error {
	if len(b) >= 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3 { // an alert or a handshake record
		return fmt.Errorf("%w: the peer speaks TLS and this side does not", ErrTLS)
	}
	return fmt.Errorf("%w: it began with %q", ErrNotKvstore, b)
}

// handshake introduces the two sides of a fresh byte stream to each other, as
// PROTOCOL.md says, and gives the identity of the other one. The caller bounds
// its time and closes the stream when it fails.
func handshake(nc net.Conn, cfg *Config, dialer bool) (Identity, error) {
	binding, err := channelBinding(nc)
	if err != nil {
		return Identity{}, err
	}
	mine := hello{nonce: newNonce(), identity: cfg.Identity().complete()}
	if len(cfg.ClusterKey) > 0 {
		mine.flags |= flagKeyed
	}
	sent, err := appendHello(nil, mine)
	if err != nil {
		return Identity{}, err
	}

	// The acceptor listens first, so that a stranger gets no answer.
	if dialer {
		if _, err := nc.Write(sent); err != nil {
			return Identity{}, err
		}
	}
	theirs, received, err := readHello(nc)
	if dialer && err == io.EOF {
		err = errHungUp
	}
	if err != nil {
		return Identity{}, err
	}
	if !dialer {
		if _, err := nc.Write(sent); err != nil {
			return Identity{}, err
		}
	}
	transcript := proofs{key: cfg.ClusterKey, dialer: sent, acceptor: received, binding: binding}
	if !dialer {
		transcript.dialer, transcript.acceptor = received, sent
	}

	refusal := agree(mine, theirs)
	if dialer {
		err := sendProof(nc, refusal, transcript.proof(dialerRole))
		if err == nil {
			err = readProof(nc, transcript.proof(acceptorRole))
		}
		return theirs.identity, err
	}
	err = readProof(nc, transcript.proof(dialerRole))
	if refusal == nil {
		refusal = err
	}
	if err == nil || errors.Is(err, errUnproved) { // else the dialer has refused, and listens no more
		refusal = sendProof(nc, refusal, transcript.proof(acceptorRole))
	}
	return theirs.identity, refusal
}

var errHungUp = fmt.Errorf("the peer hung up instead of answering; perhaps it expects TLS, or is not a kvstore node: %w", io.EOF)

// agree applies the rules for two hellos, by which both sides come to the same
// end.
func agree(a, b hello) error {
	if _, err := a.identity.Version(b.identity); err != nil {
		return err
	}
	if (a.flags^b.flags)&flagKeyed != 0 {
		return fmt.Errorf("%w: only one side has one", ErrBadKey)
	}
	return nil
}

// proofs is what both sides saw, and the key that they should share.
type proofs struct{ key, dialer, acceptor, binding []byte }

func (p proofs) proof(role string) []byte {
	m := hmac.New(sha256.New, p.key)
	m.Write([]byte(role))
	m.Write(p.dialer)
	m.Write(p.acceptor)
	m.Write(p.binding)
	return m.Sum(nil)
}

// sendProof sends the proof, or the verdict that there is nothing to prove
// because of err; then it gives err back.
func sendProof(w io.Writer, err error, proof []byte) error {
	msg := make([]byte, 1, proofBytes)
	switch {
	case err == nil:
		msg = append(msg, proof...)
	case errors.Is(err, ErrBadKey):
		msg[0] = verdictBadKey
	case errors.Is(err, ErrWrongCluster):
		msg[0] = verdictWrongCluster
	case errors.Is(err, ErrVersion):
		msg[0] = verdictVersion
	default:
		return err // the stream itself is broken
	}
	_, werr := w.Write(msg[:proofBytes])
	if err != nil {
		return err
	}
	return werr
}

// errUnproved: the other side has another key, or was told something else.
var errUnproved = fmt.Errorf("%w: the proof does not match", ErrBadKey)

// readProof reads the other side's proof and compares it in constant time.
func readProof(r io.Reader, want []byte) error {
	var b [proofBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	switch b[0] {
	case verdictOK:
		if !hmac.Equal(b[1:], want) {
			return errUnproved
		}
		return nil
	case verdictBadKey:
		return ErrBadKey
	case verdictWrongCluster:
		return ErrWrongCluster
	case verdictVersion:
		return ErrVersion
	}
	return fmt.Errorf("%w: verdict %d", ErrCorrupt, b[0])
}

// channelBinding ties the proofs to the TLS session below, if there is one, so
// that nobody can sit between two sessions and pass the proofs on.
func channelBinding(nc net.Conn) ([]byte, error) {
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return nil, nil
	}
	state := tc.ConnectionState()
	return state.ExportKeyingMaterial("EXPORTER-kvstore", nil, 32)
}
