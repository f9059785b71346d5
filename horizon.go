package kvstore

// A horizonMark says when records were asked for, so that they are not taken once
// this node's horizon has moved on.
type horizonMark struct{}

type horizons struct{}

func (h *horizons) mark() horizonMark { return horizonMark{} }
