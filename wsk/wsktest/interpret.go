package wsktest

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
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

// sameStatus compares a status with one of several that are allowed, a|b.
func (w *world) sameStatus(want string, got ntstatus.Status) error {
	for _, name := range strings.Split(want, "|") {
		if _, ok := ntstatus.Parse(name); !ok {
			return fmt.Errorf("%q is no status", name)
		}
		if got.Error() == name {
			return nil
		}
	}
	return fmt.Errorf("status %v, want %s", got, want)
}

func (w *world) compare(s *statement, p *pending) error {
	var results map[string]any
	if p.inv.results != nil {
		results = p.inv.results()
	}
	for k, v := range s.wants {
		var err error
		switch k {
		case "info":
			err = w.sameNumber(v, p.status().Information)
		case "returned":
			err = w.sameNumber(v, p.returned)
		case "inline":
			if !w.debug.AlwaysPend && !w.debug.RandomOrder { // The other modes are there to change it.
				err = w.sameStatus(v, p.inline)
			}
		case "save":
			w.blobs[strings.TrimPrefix(v, "$")] = bytes.Clone(p.out[:p.status().Information])
		case "save-records", "save-context": // by after
		case "untouched":
			err = w.untouched(v, p)
		default:
			err = w.same(v, results[k])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// untouched checks that the output buffer is as it was, from an offset on.
func (w *world) untouched(from string, p *pending) error {
	n, err := w.number(from)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(p.out[n:], p.fill[n:]):
		return fmt.Errorf("the buffer was written to from %d on", n)
	}
	return nil
}

// sameNumber compares; >N is anything more, and a $name without a value gets it.
func (w *world) sameNumber(want string, got int) error {
	if name, ok := strings.CutPrefix(want, "$"); ok && !strings.ContainsAny(name, "+-") {
		if _, known := w.numbers[name]; !known {
			w.numbers[name] = got
			return nil
		}
	}
	more := strings.HasPrefix(want, ">")
	n, err := w.number(strings.TrimPrefix(want, ">"))
	switch {
	case err != nil:
		return err
	case more && got <= n, !more && got != n:
		return fmt.Errorf("%d, want %s", got, want)
	}
	return nil
}

func (w *world) same(want string, got any) error {
	switch got := got.(type) {
	case nil:
		return fmt.Errorf("there is no such result")
	case int:
		return w.sameNumber(want, got)
	case bool:
		if want != strconv.FormatBool(got) {
			return fmt.Errorf("%v, want %s", got, want)
		}
	case string:
		if want != got {
			return fmt.Errorf("%q, want %q", got, want)
		}
	case netip.AddrPort:
		a, err := w.addr(want)
		if err != nil || a != got {
			return fmt.Errorf("%v, want %v (%v)", got, a, err)
		}
	case []byte:
		b, err := w.blob(want)
		if err != nil || !bytes.Equal(b, got) {
			return fmt.Errorf("%q, want %q (%v)", got, b, err)
		}
	}
	return nil
}
