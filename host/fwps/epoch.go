package fwps

import "sync/atomic"

// An Epoch is how long a callout answers as it does: it ends when the code or the
// configuration behind the callout becomes another while it stays registered. It
// holds on to nothing of the callout.
type Epoch struct{ n atomic.Uint64 }

// Now is the moment before a question: an answer that was begun then is good until
// End.
func (e *Epoch) Now() Moment { return Moment{e, e.n.Load()} }

// End makes what was answered before not count any more. It comes after the change.
func (e *Epoch) End() { e.n.Add(1) }

// A Moment is a time in an Epoch. The zero Moment is of one that never ends.
type Moment struct {
	epoch *Epoch
	n     uint64
}

// Over reports whether the epoch has ended since.
func (m Moment) Over() bool { return m.epoch != nil && m.epoch.n.Load() != m.n }
