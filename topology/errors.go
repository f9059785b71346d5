package topology

import (
	"errors"
	"fmt"
)

// Why a join is refused. Effects.Refused wraps one of them.
var (
	// ErrHasData: the cluster has accepted a write. Join before the first write.
	ErrHasData = errors.New("topology: the cluster already holds data, a node cannot join it yet")
	// ErrNameTaken: a member that is alive, or that nobody can stand in for, has this node
	// id and another data directory. Choose another id, or end that member first.
	ErrNameTaken = errors.New("topology: the node id is taken by another data directory, choose another id")
	// ErrTooManyLost: with this one, most owners of a partition would have lost their
	// directories. It is let in when another one has its data back, or is there again.
	ErrTooManyLost = errors.New("topology: too many owners of one partition have lost their directories; this one has to wait until another has its data back; if one of the old directories is still there, start its node with it")
	// ErrWrongCluster: the seed belongs to a cluster of another name. Correct the seeds or the name.
	ErrWrongCluster = errors.New("topology: the seed belongs to another cluster, check the seeds and the cluster name")
	// ErrIncompatible: the cluster cannot take this node as it is; the text says why.
	ErrIncompatible = errors.New("topology: the cluster cannot take this node")
)

// refusals by their code on the wire. Append only.
var refusals = [...]error{1: ErrHasData, 2: ErrNameTaken, 3: ErrWrongCluster, 4: ErrIncompatible, 5: ErrTooManyLost}

func refusalCode(err error) byte {
	for code, r := range refusals {
		if r != nil && errors.Is(err, r) {
			return byte(code)
		}
	}
	return 4
}

// refusal is the error for a code; unknown ones come from a later version.
func refusal(code byte, text string) error {
	err := ErrIncompatible
	if int(code) < len(refusals) && refusals[code] != nil {
		err = refusals[code]
	}
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}
