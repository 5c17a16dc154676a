package wsk

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Verifier finds what clients do wrong with IRPs, buffers and sockets, as
// Driver Verifier does: a second completion, the use of an IRP or socket that is
// gone, a pending IRP that is freed, a routine that lets a completion go on that
// it ended itself, a buffer that changes while it is lent, and what is left at
// deregistration. It costs a copy of every buffer that is lent and a look at the
// stack for every call. It watches an IRP from its first use with a provider on.
type Verifier struct {
	// Report hears of each violation, on the goroutine that did it. It must not
	// use the IRP. Optional: nil panics, as Driver Verifier stops the machine.
	Report func(Violation)

	mu   sync.Mutex
	irps map[*IRP]struct{} // that their owners have not freed
}

// A Violation is one thing that a client did wrong.
type Violation struct {
	Rule string // that was broken
	What string // was done
	At   Site   // where it was done; for a buffer, where it was lent
	// Before is where the other half of it was done: the call that the IRP is in,
	// its completion, its Free. Its zero value is WSK itself.
	Before Site
}

func (v Violation) Error() string {
	s := fmt.Sprintf("wsk: %s: %s at %s", v.Rule, v.What, v.At)
	if v.Before != (Site{}) {
		s += ", after " + v.Before.String()
	}
	return s
}

// A Site is a line of the client's.
type Site struct {
	Function, File string
	Line           int
}

func (s Site) String() string {
	if s == (Site{}) {
		return "WSK"
	}
	return fmt.Sprintf("%s:%d (%s)", s.File, s.Line, s.Function)
}

var ownPackage = reflect.TypeFor[Verifier]().PkgPath() + "."

// callSite is the innermost caller outside this package.
func callSite() Site {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, ownPackage) && !strings.HasPrefix(f.Function, "runtime.") {
			return Site{f.Function, f.File, f.Line}
		}
		if !more {
			return Site{}
		}
	}
}

func (v *Verifier) report(x Violation) {
	if v.Report == nil {
		panic(x)
	}
	v.Report(x)
}

// A trail is what a verifier knows about an IRP.
type trail struct {
	v                  *Verifier
	client             *Client
	used, ended, freed Site
	lent               []loan
}

// A loan is a buffer that WSK has until the IRP is completed.
type loan struct {
	buffer, was []byte
	fills       bool // WSK writes to it
}

// watch begins the trail of an IRP that a client's call takes. The IRP is locked.
func (p *IRP) watch(c *Client) {
	if c.provider == nil || c.provider.opts.Debug.Verifier == nil {
		return
	}
	v := c.provider.opts.Debug.Verifier
	if p.trail == nil {
		p.trail = &trail{v: v}
		v.mu.Lock()
		if v.irps == nil {
			v.irps = map[*IRP]struct{}{}
		}
		v.irps[p] = struct{}{}
		v.mu.Unlock()
	}
}

// misused reports what was done to the IRP. The IRP is locked.
func (p *IRP) misused(rule, what string) {
	t := p.trail
	if t == nil {
		return
	}
	before := t.ended
	switch {
	case p.freed:
		before = t.freed
	case p.inflight:
		before = t.used
	}
	t.v.report(Violation{Rule: rule, What: what, At: callSite(), Before: before})
}

// usable reports whether the IRP's owner has it. The IRP is locked.
func (p *IRP) usable(what string) bool {
	switch {
	case p.freed:
		p.misused("IRP-03", what+" an IRP that was freed")
	case p.inflight:
		p.misused("IRP-14", what+" an IRP that is in flight")
	default:
		return true
	}
	return false
}

func (t *trail) free(p *IRP) {
	if t == nil {
		return
	}
	t.freed = callSite()
	t.v.mu.Lock()
	delete(t.v.irps, p)
	t.v.mu.Unlock()
}

// lend notes a buffer that must not change until the call's IRP is completed.
func (c call) lend(buffer []byte, fills bool) {
	p := c.irp
	if p == nil || p.trail == nil || len(buffer) == 0 {
		return
	}
	p.mu.Lock()
	p.trail.lent = append(p.trail.lent, loan{buffer, bytes.Clone(buffer), fills})
	p.mu.Unlock()
}

// settle compares the buffers that were lent with what they were.
func (c call) settle(st ntstatus.Status, n int) {
	p := c.irp
	if p.trail == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.trail.lent {
		from := 0
		if l.fills {
			// A receive that was cancelled may have written to it.
			if from = len(l.buffer); st.Ok() {
				from = min(n, from)
			}
		}
		if !bytes.Equal(l.buffer[from:], l.was[from:]) {
			p.trail.v.report(Violation{Rule: "WSK-CTL-07", What: "a buffer was changed while WSK had it, lent", At: p.trail.used})
		}
	}
	p.trail.lent = nil
}

// idle are the IRPs of a client that no call has, and that nobody has freed.
func (v *Verifier) idle(c *Client) (list []*IRP) {
	v.mu.Lock()
	all := slices.Collect(maps.Keys(v.irps))
	v.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		if p.trail.client == c && !p.inflight && !p.freed {
			list = append(list, p)
		}
		p.mu.Unlock()
	}
	return list
}

// leaks reports what is left of the IRPs that were idle when a client began to
// deregister; one that was in use may still be freed.
func (v *Verifier) leaks(idle []*IRP) {
	for _, p := range idle {
		p.mu.Lock()
		switch {
		case p.freed:
		case p.allocated:
			v.report(Violation{Rule: "IRP-03", What: "an IRP was not freed, last used", At: p.trail.used})
		case p.current < len(p.stack):
			v.report(Violation{Rule: "IRP-04", What: "a passed-down IRP was kept and not completed, last used", At: p.trail.used})
		}
		p.mu.Unlock()
		v.mu.Lock()
		delete(v.irps, p)
		v.mu.Unlock()
	}
}

// misused reports what a client did to a socket.
func (s *Socket) misused(rule, what string) {
	if v := s.client.provider.opts.Debug.Verifier; v != nil {
		v.report(Violation{Rule: rule, What: what, At: callSite(), Before: s.madeAt})
	}
}

// leakedSockets reports the open sockets of a client that has released its last
// capture and on which nothing is pended, so that nobody will close them. The
// client is locked.
func (c *Client) leakedSockets() {
	v := c.provider.opts.Debug.Verifier
	if v == nil {
		return
	}
	for s := range c.sockets {
		if !s.reported && s.isIdle() {
			s.reported = true
			v.report(Violation{Rule: "WSK-REG-06", What: "a socket is open and its client has released the provider, made", At: s.madeAt})
		}
	}
}

func (s *Socket) isIdle() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.closing && s.calls == 0 }
