package policytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwps"
)

// A Change is a connection that two policies decide differently.
type Change struct {
	In            fwps.Incoming
	Before, After Outcome
	// Traces are those of both policies, once Explain was called.
	BeforeTrace, AfterTrace string

	entry *flight.Entry // of In; nil when nothing was recorded
}

// Kind is what changes, such as block->permit.
func (c *Change) Kind() string { return c.Before.Action + "->" + c.After.Action }

// Cause is the same for changes that the same filters make.
func (c *Change) Cause() string {
	return fmt.Sprint(c.Kind(), c.Before.cause(), c.After.cause(), c.In.Inbound)
}

func (o *Outcome) cause() string {
	for _, r := range o.Reasons {
		if r.Decided || o.Action != Permit {
			return fmt.Sprint(r.Layer.ForFamily(false), r.Name, r.Callout, r.Why)
		}
	}
	return ""
}

// A Comparison finds what two policies decide differently. It serves one goroutine.
type Comparison struct {
	before, after World
	traced        [2]*World
}

// Compare begins a comparison.
func Compare(before, after *World) *Comparison {
	return &Comparison{before: *before.Quiet(), after: *after.Quiet(), traced: [2]*World{before, after}}
}

// silent writes nothing down: most connections do not change.
type silent struct{}

func (silent) Decision(*fwps.Incoming, *fwps.Decision) {}
func (silent) Redirect(ale.RedirectEvent)              {}
func (silent) Blocked(*ale.BlockedError)               {}
func (silent) String() string                          { return "" }

// Renewed is after how many connections a Recorder is to be made anew, so that the
// records of redirects that nobody accepts do not add up: so many Questions are
// asked at once.
const Renewed = 1024

// Quiet is the world without traces.
func (w *World) Quiet() *World {
	quiet := *w
	quiet.NewTrace = func() Trace { return silent{} }
	return &quiet
}

// A Question is a connection and what callouts are told about it; Entry is nil
// when nothing was recorded.
type Question struct {
	In    fwps.Incoming
	Entry *flight.Entry
}

// Over decides connections with both policies and gives those to found on which
// they do not agree: on the action, where it goes, and what the proxy and the
// callout are told. It keeps no more than two batches, of which one is read while
// the other is decided. n is how many there were.
func (c *Comparison) Over(ctx context.Context, questions iter.Seq2[Question, error], found func(*Change) error) (n int, err error) {
	batch := make([]Question, 0, Renewed)
	var under *answering
	next := func() error {
		err := under.wait(found)
		under = c.begin(ctx, batch)
		batch = make([]Question, 0, Renewed)
		return err
	}
	for q, err := range questions {
		if err != nil {
			return n, errors.Join(err, under.wait(found))
		}
		n++
		if batch = append(batch, q); len(batch) == Renewed {
			if err := next(); err != nil {
				return n, errors.Join(err, under.wait(found))
			}
		}
	}
	return n, errors.Join(next(), under.wait(found))
}

// answering is a batch that is being decided.
type answering struct {
	changes []*Change
	err     error
	done    chan struct{} // nil: nothing is
}

func (c *Comparison) begin(ctx context.Context, batch []Question) *answering {
	a := &answering{done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.changes, a.err = c.ask(ctx, batch)
	}()
	return a
}

// wait gives the changes of a batch to found. Later calls do nothing.
func (a *answering) wait(found func(*Change) error) error {
	if a == nil || a.done == nil {
		return nil
	}
	<-a.done
	a.done = nil
	for _, ch := range a.changes {
		if err := found(ch); err != nil {
			return err
		}
	}
	return a.err
}

// ask decides a batch, with each policy on a goroutine.
func (c *Comparison) ask(ctx context.Context, qs []Question) ([]*Change, error) {
	var outcomes [2][]Outcome
	var errs [2]error
	var wg sync.WaitGroup
	for i, w := range []*World{&c.before, &c.after} {
		wg.Go(func() { outcomes[i], errs[i] = w.answer(ctx, qs) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	var changes []*Change
	for i := range qs {
		before, after := &outcomes[0][i], &outcomes[1][i]
		if c.agree(before, after) {
			continue
		}
		changes = append(changes, &Change{In: qs[i].In, Before: *before, After: *after, entry: qs[i].Entry})
	}
	return changes, nil
}

// answer decides connections one after the other.
func (w *World) answer(ctx context.Context, qs []Question) ([]Outcome, error) {
	r, out := w.Record(), make([]Outcome, 0, len(qs))
	for i := range qs {
		o, err := w.ask(ctx, r, &qs[i])
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func (w *World) ask(ctx context.Context, r *Recorder, q *Question) (Outcome, error) {
	if q.Entry != nil {
		return w.Decide(told(ctx, q.Entry), r, w.Incoming(q.Entry))
	}
	return w.Decide(ctx, r, q.In)
}

// Explain decides a change again, for its traces: of many with one cause one is
// enough. Those that Over hands to found may be explained in there.
func (c *Comparison) Explain(ctx context.Context, ch *Change) error {
	q := Question{In: ch.In, Entry: ch.entry}
	for i, trace := range []*string{&ch.BeforeTrace, &ch.AfterTrace} {
		r := c.traced[i].Record()
		if _, err := c.traced[i].ask(ctx, r, &q); err != nil {
			return err
		}
		*trace = r.written
	}
	return nil
}

func (c *Comparison) agree(a, b *Outcome) bool {
	return a.Action == b.Action && c.before.place(a.Destination) == c.after.place(b.Destination) &&
		bytes.Equal(a.Context, b.Context) && bytes.Equal(a.Record, b.Record)
}

// place is an address, or the name of the policy's proxy that has it: the system
// chooses where proxies listen. An IPv4 address that an IPv6 socket was given is
// what AUTH_CONNECT calls it, and so what a recording has.
func (w *World) place(a netip.AddrPort) string {
	a = unmapped(a)
	for id, p := range w.Proxies {
		if p == a {
			return "proxy:" + id
		}
	}
	return a.String()
}
