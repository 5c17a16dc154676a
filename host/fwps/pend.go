package fwps

import "sync"

// A PendedClassify is a classification that a callout holds. Complete must be
// called once, from any goroutine; it is harmless when nobody waits any more
// (SC-79).
type PendedClassify struct {
	once sync.Once
	done chan *Verdict
}

// Complete is FwpsCompleteClassify0. A verdict is the callout's final answer,
// with the new destination if it changed the request; nil asks everybody again,
// as a reauthorization (CH-11, SC-76). The verdict is the engine's afterwards.
func (p *PendedClassify) Complete(v *Verdict) {
	p.once.Do(func() { p.done <- v })
}

// Done delivers what Complete was given. It is the engine's.
func (p *PendedClassify) Done() <-chan *Verdict { return p.done }

// A PendedOperation is an operation that a callout holds.
type PendedOperation struct {
	once sync.Once
	done chan struct{}
}

// Complete is FwpsCompleteOperation0: the operation is authorized again.
func (p *PendedOperation) Complete() { p.once.Do(func() { close(p.done) }) }

// Done is closed by Complete. It is the engine's.
func (p *PendedOperation) Done() <-chan struct{} { return p.done }
