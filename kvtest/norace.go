//go:build !race

package kvtest

const parallel = false
