package main

import (
	"context"

	"github.com/calloutd/calloutd/host/policyrun"
)

// The books are what is kept of all that is decided while a policy is in force.
type books struct {
	account account
	tape    tape
	records records
	inputs  hashes // of all files of the policy; nil: nobody asks
}

// open has a tracer and its policies keep the books; out prints the summary. The
// function closes them, after the last decision.
func (b *books) open(t, out *tracer) (end func(), err error) {
	endAccount, err := b.account.open(t, out)
	if err != nil {
		return nil, err
	}
	store, closeStore, err := b.records.open(t)
	if err != nil {
		endAccount()
		return nil, err
	}
	t.tape, t.store = &b.tape, store
	return func() { closeStore(); t.end(); endAccount() }, nil
}

// putInForce opens the books and puts the policy of a file into force; the function
// ends both.
func (b *books) putInForce(ctx context.Context, path string, t *tracer) (_ *policyrun.Runner, end func(), err error) {
	endBooks, err := b.open(t, t)
	if err != nil {
		return nil, nil, err
	}
	o := t.options()
	if b.inputs != nil {
		b.inputs.add(path)
		o.OnInput = b.inputs.add
	}
	r := policyrun.New(o)
	defer func() {
		if err != nil {
			r.Close()
			endBooks()
		}
	}()
	if err := untilEnded(ctx, func(ctx context.Context) error { return r.Load(ctx, path) }); err != nil {
		return nil, nil, err
	}
	endTape, err := b.tape.begin(r.Policy(), t)
	if err != nil {
		return nil, nil, err
	}
	// The tape before what is still deciding: its last decisions are those of its end.
	return r, func() { endTape(); r.Close(); endBooks() }, nil
}
