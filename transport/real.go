package transport

import (
	"crypto/rand"
	"time"
)

// This file and tcp.go are the only ones that touch the world outside.

// now is the clock of deadlines. Only differences are used, so a jump of the
// wall clock does no harm.
func now() time.Time { return time.Now() }

// newNonce draws the challenge of one handshake.
func newNonce() (n [32]byte) {
	rand.Read(n[:]) // never fails
	return n
}
