package policytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
)

// A Result is a case that was run.
type Result struct {
	Suite       *Suite
	Case        *Case
	Differences []StepDifferences // none: it passes
	Err         error             // why it could not be run to its end
	Trace       string
	Took        time.Duration

	asked []Classification
}

// StepDifferences are those of one step.
type StepDifferences struct {
	Step        *Step
	Differences []Difference
}

// Passed reports whether everything was as it was wanted.
func (r *Result) Passed() bool { return r.Err == nil && len(r.Differences) == 0 }

// Run runs cases, as many at a time as parallel says, and returns their results
// in their order. What they reach is added to reached.
func Run(ctx context.Context, w *World, s *Suite, cases []*Case, parallel int, reached *Coverage) []Result {
	out := make([]Result, len(cases))
	next := make(chan int)
	var wg sync.WaitGroup
	for range max(1, min(parallel, len(cases))) {
		wg.Go(func() {
			for i := range next {
				out[i] = w.run(ctx, s, cases[i])
				reached.add(out[i].asked)
				out[i].asked = nil
			}
		})
	}
	for i := range cases {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

func (w *World) run(ctx context.Context, s *Suite, c *Case) Result {
	if c.Refusal != nil {
		return w.refuse(ctx, s, c)
	}
	began := time.Now()
	res := Result{Suite: s, Case: c}
	run := running{world: w, Recorder: w.Record(), flows: make([]*ale.Flow, len(c.Steps)), arrived: make([]*ale.Flow, len(c.Steps))}
	for i := range c.Steps {
		o, err := run.step(ctx, c, i)
		if err != nil {
			res.Err = fmt.Errorf("%s%w", stepName(&c.Steps[i]), err)
			break
		}
		if d := w.compare(&c.Steps[i], &o); len(d) > 0 {
			res.Differences = append(res.Differences, StepDifferences{&c.Steps[i], d})
		}
	}
	res.Trace = run.trace.String()
	run.close()
	res.asked, res.Took = run.Asked, time.Since(began)
	return res
}

func stepName(s *Step) string {
	if s.Name == "" {
		return ""
	}
	return "step " + s.Name + ": "
}

// running is a case under way.
type running struct {
	*Recorder
	world   *World
	flows   []*ale.Flow // of the steps, nil for those that were blocked
	sockets []*ale.Socket
	arrived []*ale.Flow // the same, as the program that has their records accepted them
	start   int         // what was asked from here on belongs to the step
}

// step takes one connection through the layers.
func (r *running) step(ctx context.Context, c *Case, i int) (Outcome, error) {
	s := &c.Steps[i]
	in, from := s.Incoming, r.next()
	var f *ale.Flow
	var err error
	switch {
	case s.Reauthorizes >= 0:
		if f = r.flows[s.Reauthorizes]; f == nil {
			return Outcome{}, errors.New("reauthorizes: the connection was blocked, so there is none to ask about again")
		}
		err = r.reauthorize(ctx, f)
		if err != nil {
			f = nil
		}
	case s.Listen:
		var sock *ale.Socket
		sock, err = listen(ctx, r.Enforcer, in)
		r.sockets = append(r.sockets, sock)
	case in.Inbound:
		f, err = r.Enforcer.Accept(ctx, in)
	case s.RecordsOf >= 0:
		r.start = from
		f, err = r.follow(ctx, s)
		from = r.start
	default:
		f, err = r.connect(ctx, s)
	}
	if s.Reauthorizes < 0 {
		r.flows[i] = f
	}
	o, err := r.outcome(r.world, from, f, err)
	if err == nil && s.wants("sound") {
		o.sound, err = r.sound(ctx, in)
	}
	return o, err
}

func (s *Step) wants(key string) bool {
	return slices.ContainsFunc(s.Want, func(w Want) bool { return w.Key == key })
}

func (r *running) sound(ctx context.Context, in fwps.Incoming) (string, error) {
	f, err := r.world.Sound(ctx, in)
	if err != nil || f == nil {
		return "true", err
	}
	return f.String(), nil
}

func (r *running) connect(ctx context.Context, s *Step) (*ale.Flow, error) {
	sock, f, err := Connect(ctx, r.Enforcer, s.Incoming)
	r.sockets = append(r.sockets, sock)
	return f, err
}

// follow accepts the connection that an earlier step made, unless one between them has,
// and connects with its records. That it is not accepted is an outcome too.
func (r *running) follow(ctx context.Context, s *Step) (*ale.Flow, error) {
	before := r.flows[s.RecordsOf]
	if before == nil || !before.Redirected {
		return nil, errors.New("records_of: the connection was not redirected, so there are no records")
	}
	acc := &r.arrived[s.RecordsOf]
	if *acc == nil {
		by := s.Incoming
		by.Records = nil
		var err error
		if *acc, err = Arrive(ctx, r.Enforcer, before, by); err != nil {
			return nil, err
		}
	}
	next := *s
	var err error
	if next.Incoming.Records, err = Carry(r.Enforcer, (*acc).Records); err != nil {
		return nil, err
	}
	if !next.Incoming.Remote.IsValid() {
		next.Incoming.Remote = before.Original
	}
	r.start = r.next() // What follows is the step, not that it was accepted.
	return r.connect(ctx, &next)
}

// close ends the connections and sockets, which the layers hear of (ALE-LAY-07).
func (r *running) close() {
	for _, f := range append(r.flows, r.arrived...) {
		if f != nil {
			f.Close()
		}
	}
	for _, s := range r.sockets {
		s.Close()
	}
}
