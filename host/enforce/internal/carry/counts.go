package carry

import (
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
)

// Counts are of what was asked to be carried. The zero value works.
type Counts struct {
	carried atomic.Uint64
	refused [len(refusals)]atomic.Uint64
}

// A refusal is why something is not carried.
type refusal int

const (
	byPolicy refusal = iota
	tooMany
	noDescriptors
	unreached
)

var refusals = [...]string{byPolicy: enforce.RefusedByPolicy, tooMany: enforce.RefusedForConnections, noDescriptors: enforce.RefusedForDescriptors, unreached: enforce.RefusedUnreached}

// Refused counts what is not carried, and does not go on to be carried, for an error.
func (n *Counts) Refused(err error) {
	b, why := (*ale.BlockedError)(nil), unreached
	switch {
	case errors.As(err, &b), errors.Is(err, ale.ErrAborted):
		why = byPolicy
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		why = noDescriptors
	}
	n.refused[why].Add(1)
}

// TooMany counts what there is no place for.
func (n *Counts) TooMany() { n.refused[tooMany].Add(1) }

// Stats are the figures of this moment, of connections that have places.
func (n *Counts) Stats(places *Shares) enforce.ConnectionStats {
	s := enforce.ConnectionStats{Open: places.Taken(), Max: places.most, Carried: n.carried.Load(), Refused: map[string]uint64{}}
	for why, name := range refusals {
		s.Refused[name] = n.refused[why].Load()
	}
	return s
}
