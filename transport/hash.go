package transport

// hash mixes a seed, two names and a number (FNV-1a, finished with the mixer of
// SplitMix64). It decides jitter and the fate of messages, so that a seed gives
// the same ones wherever else a draw is added.
func hash(seed uint64, a, b string, n uint64) uint64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037) ^ mix(seed)
	for i := range len(a) {
		h = (h ^ uint64(a[i])) * prime
	}
	h = (h ^ 0x100) * prime // no byte: ends the first name
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * prime
	}
	return mix(h ^ mix(n))
}

func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
