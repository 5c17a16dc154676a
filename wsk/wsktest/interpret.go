package wsktest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A verb is a word of the scripts. Of do and call it has one.
type verb struct {
	args  int    // how many it takes; more are possible if it is variadic
	vari  bool   //
	keys  string // that it knows
	wants string // that its result can have, besides those of every call
	do    func(w *world, s *statement) error
	call  func(w *world, s *statement) (*invocation, error)
}

// An invocation is a call that is about to be made.
type invocation struct {
	do       func(*wsk.IRP) ntstatus.Status
	out      []byte
	returned *int
	// then runs after success; results are what the statement can compare.
	then    func(p *pending) error
	after   func(p *pending) // runs after a failure too
	results func() map[string]any
}

const callWants = "info inline returned save untouched"

// run runs a script.
func (w *world) run(script []*statement) error {
	for _, s := range script {
		if err := w.step(s); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) step(s *statement) error {
	v, ok := verbs[s.verb]
	if !ok {
		return s.errorf("no such word")
	}
	if len(s.args) < v.args || len(s.args) > v.args && !v.vari {
		return s.errorf("takes %d words, has %d", v.args, len(s.args))
	}
	known, wants := strings.Fields(v.keys), strings.Fields(v.wants)
	if v.call != nil {
		known, wants = append(known, "irp"), append(wants, strings.Fields(callWants)...)
	}
	for k := range s.keys {
		if !slices.Contains(known, k) {
			return s.errorf("no such key: %s", k)
		}
	}
	for k := range s.wants {
		if !slices.Contains(wants, k) {
			return s.errorf("no such result: %s", k)
		}
	}
	if v.do != nil {
		if s.label != "" {
			return s.errorf("is no call and has no label")
		}
		if err := v.do(w, s); err != nil {
			return s.errorf("%w", err)
		}
		return nil
	}
	return w.invoke(s, v)
}

// invoke makes a call, and waits for it unless it has a label.
func (w *world) invoke(s *statement, v verb) error {
	inv, err := v.call(w, s)
	if err != nil {
		return s.errorf("%v", err)
	}
	i, err := w.irpOf(s)
	if err != nil {
		return s.errorf("%v", err)
	}
	fill := bytes.Clone(inv.out)
	p := w.start(i, inv.do)
	p.out, p.fill, p.inv = inv.out, fill, inv
	if s.label != "" {
		if s.want != "" {
			return s.errorf("a call with a label is compared by await")
		}
		if p.inline != ntstatus.Pending {
			return s.errorf("returned %v and not STATUS_PENDING", p.inline)
		}
		w.calls[s.label] = p
		return nil
	}
	return w.settle(s, p)
}

func (w *world) irpOf(s *statement) (*irp, error) {
	name, ok := s.keys["irp"]
	switch {
	case !ok:
		return nil, nil
	case name == "none":
		return &irp{}, nil
	}
	i := w.irps[name]
	if i == nil {
		return nil, fmt.Errorf("there is no IRP %q", name)
	}
	return i, nil
}

// settle waits for a call and compares it with what the statement wants.
func (w *world) settle(s *statement, p *pending) error {
	if err := p.wait(); err != nil {
		return s.errorf("%v", err)
	}
	if err := p.check(); err != nil {
		return s.errorf("%v", err)
	}
	if p.inv.returned != nil {
		p.returned = *p.inv.returned
	}
	st := p.status()
	want := s.want
	if want == "" {
		want = "STATUS_SUCCESS"
	}
	if err := w.sameStatus(want, st.Status); err != nil {
		return s.errorf("%v", err)
	}
	if p.inv.after != nil {
		p.inv.after(p)
	}
	if st.Status.Ok() && p.inv.then != nil {
		if err := p.inv.then(p); err != nil {
			return s.errorf("%v", err)
		}
	}
	if err := w.compare(s, p); err != nil {
		return s.errorf("%v", err)
	}
	return nil
}
