package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/host/redirect"
)

// A tracer prints what the engine decided, one line a fact.
type tracer struct {
	mu     sync.Mutex
	out    io.Writer
	paint  painter
	json   bool
	all    bool                             // not only what went wrong
	policy atomic.Pointer[policyrun.Policy] // the newest

	log *policytrace.Log // of --events; nil: nobody reads them
	sum *summary         // of --summary; nil likewise

	logger *slog.Logger // of a daemon, in place of out

	refusals loglimit.Kinds // by refusalKind

	tape *tape // of --record; nil likewise

	store redirect.Store    // of --records; nil: in memory
	seal  *redirect.SealKey // of --records; nil: a new one

	details *policytrace.Details // nil: only who was asked
}

func newTracer(out io.Writer, asJSON, all bool) *tracer {
	return &tracer{out: out, paint: paintFor(out), json: asJSON, all: all}
}

// emit records an event and prints it.
func (t *tracer) emit(e policytrace.Event, text string) {
	t.record(e)
	t.print(e, text)
}

// notice is emit for what stands between the output of a command.
func (t *tracer) notice(e policytrace.Event, text string) { t.emit(e, signed(text)) }

// signed is a line that says who prints it.
func signed(text string) string { return "calloutd: " + text }

func (t *tracer) record(e policytrace.Event) {
	t.log.Write(e)
	t.sum.add(e)
}

// print prints a line: v, or the text.
func (t *tracer) print(v any, text string) {
	if e, ok := v.(policytrace.Event); ok && t.logger != nil {
		t.logger.LogAttrs(context.Background(), e.Level(), e.Event, e.Attrs()...)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.json {
		// A trace that cannot be written has no better place to say so.
		_ = json.NewEncoder(t.out).Encode(v)
		return
	}
	fmt.Fprintln(t.out, text)
}

// read tells of what the policy in force decides.
func (t *tracer) read() policytrace.Reader {
	return policytrace.Reader{Policy: t.policy.Load(), Paint: t.paint.word, Details: t.details}
}

// unread reports whether nobody reads of what goes as it should.
func (t *tracer) unread() bool { return !t.all && t.log == nil && t.sum == nil }

// decision prints a classification.
func (t *tracer) decision(in *fwps.Incoming, d *fwps.Decision) {
	if t.unread() {
		return
	}
	e, text := t.read().Decision(in, d)
	t.record(e)
	if t.all {
		t.print(e, text)
	}
}

// redirect prints what became of the redirect that a callout asked for.
func (t *tracer) redirect(ev ale.RedirectEvent) {
	if ev.Applied && ev.Err == nil && t.unread() {
		return // While the program waits nothing is put into words that nobody reads.
	}
	e, text := t.read().Redirect(ev)
	t.record(e)
	if text != "" || t.all && t.json { // The text of one that was applied has the callout's answer.
		t.refusal(e, text)
	}
}

// A refusalKind is what a program can have printed as often as it likes: what is refused by
// one filter.
type refusalKind struct{ event, layer, filter, place string }

// refusal prints one. Who wants each has a trace, JSON, or --events.
func (t *tracer) refusal(e policytrace.Event, text string) {
	if !t.all && !t.json {
		left, ok := t.refusals.Of(refusalKind{e.Event, e.Family(), e.Name, e.Place}).Pass(loglimit.Burst)
		if !ok {
			return
		}
		if e.LeftOut = left; left > 0 {
			text += fmt.Sprintf(" (%d more like it are not printed; --events has them)", left)
		}
	}
	t.print(e, signed(text))
}

// end prints how many refusals were not printed.
func (t *tracer) end() {
	t.refusals.Left(func(kind any, left uint64) {
		k := kind.(refusalKind)
		e := policytrace.Event{Event: k.event, Layer: k.layer, Name: k.filter, Place: k.place, LeftOut: left}
		text := fmt.Sprintf("%d more are not printed: %s", left, t.paint.word(k.event))
		if k.filter != "" {
			text += fmt.Sprintf(" by filter %q (%s)", k.filter, k.place)
		}
		t.print(e, signed(text+"; --events has them"))
	})
}

// blocked prints one denial. local is where a bind or listen was meant to be.
func (t *tracer) blocked(b *ale.BlockedError, local netip.AddrPort) {
	e, text := t.read().Blocked(b, local)
	t.record(e)
	t.refusal(e, text)
}

// denied is blocked for a denial that is not the policy's.
func (t *tracer) denied(app string, pid uint32, to netip.AddrPort, err error) {
	e, text := t.read().Denied(app, pid, to, err)
	t.record(e)
	t.refusal(e, text)
}

func (t *tracer) callout(ev guest.Event) { t.notice(policytrace.Callout(ev)) }

func (t *tracer) logf(format string, args ...any) { t.notice(policytrace.Logged(format, args...)) }
