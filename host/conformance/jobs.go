package conformance

import (
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
)

// A job is a command that goes on while a callout holds it. At any time one of
// the script and its jobs runs, and the others wait: a trace has one order.
type job struct {
	moved chan struct{} // a callout holds it now, or it ended
	done  bool
	err   error
}

// A hold is what a callout pended.
type hold struct {
	job       *job
	classify  *fwps.PendedClassify
	operation *fwps.PendedOperation
}

// startable are the commands that layers can hold.
const startable = "bind listen connect accept send close"

// start COMMAND NAME ...: the command runs until a callout holds it or it ends.
func (w *world) start(a *args) error {
	word, err := a.next("a command")
	if err != nil {
		return err
	}
	if !hasWord(startable, word) || len(a.rest) == 0 {
		return a.l.errorf("only these can be started, on a socket: %s", startable)
	}
	j := &job{moved: make(chan struct{}, 1)}
	w.jobs[a.rest[0]] = j
	command := &args{a.l, a.rest}
	a.rest = nil
	return w.resume(a.l, j, func() {
		go func() {
			j.err = commands[word](w, command)
			j.done = true
			j.moved <- struct{}{}
		}()
	})
}

// resume lets a job run until a callout holds it or it ends.
func (w *world) resume(l line, j *job, run func()) error {
	w.mu.Lock()
	w.running = j
	w.mu.Unlock()
	run()
	select {
	case <-j.moved:
	case <-time.After(10 * time.Second):
		return l.errorf("the command neither ends nor is it held")
	}
	w.mu.Lock()
	w.running = nil
	w.mu.Unlock()
	if j.done {
		return j.err
	}
	return nil
}

// wait NAME: the started command of a socket has ended.
func (w *world) wait(a *args) error {
	name, err := a.next("a socket")
	if err != nil {
		return err
	}
	switch j := w.jobs[name]; {
	case j == nil:
		return a.l.errorf("nothing was started for %q", name)
	case !j.done:
		return a.l.errorf("%q has not ended: a callout holds it", name)
	}
	return nil
}

// complete CALLOUT nil | operation | ACTION...: what a callout held first goes on.
// A second complete of the same is "again", which nobody waits for.
func (w *world) complete(a *args) error {
	name, err := a.next("a callout")
	if err != nil {
		return err
	}
	actions := a.rest
	a.rest = nil
	c, held := w.callouts[name], w.held[name]
	switch {
	case c == nil:
		return a.l.errorf("there is no callout %q", name)
	case slices.Equal(actions, []string{"again"}):
		return w.completeAgain(a.l, name)
	case len(held) == 0:
		return a.l.errorf("callout %q holds nothing", name)
	}
	h := held[0]
	w.held[name], w.completed[name] = held[1:], h
	v, err := c.verdict(a.l, h, actions)
	if err != nil {
		return err
	}
	if h.job == nil || h.job.done { // Closed meanwhile (SC-79).
		h.complete(v)
		w.printf("= nobody waits")
		return nil
	}
	return w.resume(a.l, h.job, func() { h.complete(v) })
}

func (w *world) completeAgain(l line, name string) error {
	h, ok := w.completed[name]
	if !ok {
		return l.errorf("callout %q has completed nothing", name)
	}
	h.complete(nil)
	w.printf("= nobody waits")
	return nil
}

func (h hold) complete(v *fwps.Verdict) {
	if h.operation != nil {
		h.operation.Complete()
		return
	}
	h.classify.Complete(v)
}

// verdict is what actions say, nil for "nil" and for an operation.
func (c *scripted) verdict(l line, h hold, actions []string) (*fwps.Verdict, error) {
	word := []string{"nil"}
	if h.operation != nil {
		word = []string{"operation"}
	}
	switch {
	case slices.Equal(actions, word):
		return nil, nil
	case h.operation != nil || len(actions) == 0:
		return nil, l.errorf("expected nil, operation or actions, as the callout held a classification or an operation")
	}
	if err := checkActions(l, actions); err != nil {
		return nil, err
	}
	v := new(fwps.Verdict)
	v.Reset()
	a := &acting{c: c, call: &fwps.Call{}, v: v}
	return v, a.all(behaviour{l, "", actions})
}

// holds keeps what a callout pended until complete, and lets the script go on. The
// script itself may only be held where that ends by itself.
func (w *world) holds(l line, callout string, h hold) error {
	w.mu.Lock()
	h.job = w.running
	w.held[callout] = append(w.held[callout], h)
	w.mu.Unlock()
	switch {
	case h.job != nil:
		h.job.moved <- struct{}{}
	case w.opts["pend-timeout"] == "":
		return l.errorf("the callout pends a command that was not started")
	}
	return nil
}
