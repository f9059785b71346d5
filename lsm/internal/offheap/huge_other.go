//go:build unix && !linux && !race

package offheap

func preferHuge([]byte, bool) {}

func preferSmall([]byte) {}
