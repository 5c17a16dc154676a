package policytest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A FaultKind is what can be wrong with a decision whatever it is.
type FaultKind string

// The kinds of faults.
const (
	FaultFails     FaultKind = "fails"     // a callout traps, or answers what is none
	FaultNowhere   FaultKind = "nowhere"   // a callout redirects where there is no request to change (CH-02)
	FaultFuel      FaultKind = "fuel"      // a callout does not come to an end
	FaultLoop      FaultKind = "loop"      // the proxy's own connection comes back to the proxy
	FaultDiffers   FaultKind = "differs"   // the same question has another answer
	FaultInvariant FaultKind = "invariant" // the policy says that it must not be
)

// A Fault is what is wrong with a decision.
type Fault struct {
	Kind FaultKind
	Who  string // the callout, proxy or invariant
	Why  string
}

func (f *Fault) String() string {
	switch f.Kind {
	case FaultFails, FaultNowhere:
		return fmt.Sprintf("callout %q fails: %s", f.Who, f.Why)
	case FaultFuel:
		return fmt.Sprintf("callout %q does not end: %s", f.Who, f.Why)
	case FaultLoop:
		return fmt.Sprintf("a loop through proxy %q: %s", f.Who, f.Why)
	case FaultDiffers:
		return fmt.Sprintf("the same connection is decided differently, by callout %q: %s", f.Who, f.Why)
	}
	return fmt.Sprintf("the invariant %q does not hold: %s", f.Who, f.Why)
}

// times is how often a case asks again: a callout that counts, or has several
// instances that do, may give one answer a few times in a row.
const times = 16

// Sound takes a connection through the layers again and again, each time at another
// time and with other random bytes, and follows it through the policy's proxies.
// It returns what is wrong, nil if nothing is.
func (w *World) Sound(ctx context.Context, in fwps.Incoming) (*Fault, error) {
	f, _, err := w.judge(ctx, in, times)
	return f, err
}

// Judge is Sound for one of very many connections, which asks only once more, and
// the way that the connection took through the policy: equal for connections that
// the same filters decided alike.
func (w *World) Judge(ctx context.Context, in fwps.Incoming) (f *Fault, way string, err error) {
	return w.judge(ctx, in, 1)
}

func (w *World) judge(ctx context.Context, in fwps.Incoming, times uint64) (f *Fault, way string, err error) {
	quiet := w.Quiet()
	first, asked, err := quiet.at(ctx, in, 0)
	if err != nil {
		return nil, "", err
	}
	way = wayOf(asked)
	if f := faulted(asked); f != nil {
		return f, way, nil
	}
	for n := range times {
		again, _, err := quiet.at(ctx, in, n+1)
		if err != nil {
			return nil, way, err
		}
		if why := quiet.differs(&first, &again); why != "" {
			return &Fault{FaultDiffers, differing(&first, &again), why}, way, nil
		}
	}
	if f := quiet.broken(in, &first); f != nil {
		return f, way, nil
	}
	f, err = quiet.loops(ctx, in)
	return f, way, err
}

// wayOf is who was asked and what they said.
func wayOf(asked []Classification) string {
	var b []byte
	for i := range asked {
		b = append(b, byte(asked[i].In.Layer), byte(asked[i].Action))
		for _, s := range asked[i].Steps {
			b = binary.LittleEndian.AppendUint64(b, uint64(s.Filter))
			b = append(b, byte(s.Action), byte(s.Action>>8))
		}
	}
	return string(b)
}

// differing is the callout that one of two decisions is due to, empty if none is.
func differing(a, b *Outcome) string {
	for _, o := range []*Outcome{a, b} {
		for _, r := range o.Reasons {
			if r.Callout != "" {
				return string(r.Callout)
			}
		}
	}
	return ""
}

// at decides at one of several times.
func (w *World) at(ctx context.Context, in fwps.Incoming, time uint64) (Outcome, []Classification, error) {
	r := w.Record()
	o, err := w.Decide(journal.With(ctx, moment(time)), r, in)
	return o, r.Asked, err
}

// moment is a time, and random bytes, that are the same whenever it is asked for.
func moment(n uint64) *journal.Journal {
	return journal.Replay(nil, time.Unix(1_700_000_000+int64(n)*86400, 0), n)
}

// The rules of the steps in which a callout failed.
const (
	failureRule = "AMB-42"
	nowhereRule = "CH-02"
)

// faulted finds a callout that failed, whatever the policy makes of it.
func faulted(asked []Classification) *Fault {
	for i := range asked {
		for _, s := range asked[i].Steps {
			_, continued := strings.CutPrefix(s.Why, "on failure continue: ")
			if s.Callout == "" || s.Rule != failureRule && s.Rule != nowhereRule && !continued {
				continue
			}
			kind := FaultFails
			if s.Rule == nowhereRule {
				kind = FaultNowhere
			} else if strings.Contains(s.Why, "fuel budget") || strings.Contains(s.Why, "too many calls to the host") {
				kind = FaultFuel
			}
			return &Fault{kind, string(s.Callout), s.Why}
		}
	}
	return nil
}

// differs says how two outcomes of one connection differ.
func (w *World) differs(a, b *Outcome) string {
	x, y := w.flown(a), w.flown(b)
	switch {
	case x.Action != y.Action:
		return x.Action + ", then " + y.Action
	case x.Destination != y.Destination:
		return x.Destination + ", then " + y.Destination
	case !bytes.Equal(x.Context, y.Context):
		return "another context"
	case !bytes.Equal(x.Record, y.Record):
		return "another record"
	}
	return ""
}

// broken finds an invariant that does not hold.
func (w *World) broken(in fwps.Incoming, o *Outcome) *Fault {
	if in.Inbound || len(in.Records) > 0 {
		return nil
	}
	for i := range w.Policy.Invariants {
		v := &w.Policy.Invariants[i]
		if !v.About(in.AppID, in.UserID, in.UserKnown, in.Protocol, in.Remote) || w.meets(v, o) {
			continue
		}
		is := o.Action
		if o.Action == Redirect {
			is += " to " + w.place(o.Destination)
		}
		return &Fault{FaultInvariant, v.Name, fmt.Sprintf("it is %s, and must be %s (%s)", is, mustWords(v), v.Place)}
	}
	return nil
}

func (w *World) meets(v *policyfile.Invariant, o *Outcome) bool {
	if !slices.Contains(v.Must, o.Action) {
		return false
	}
	id, _ := strings.CutPrefix(w.place(o.Destination), "proxy:")
	return o.Action != Redirect || len(v.Proxies) == 0 || slices.Contains(v.Proxies, id)
}

func mustWords(v *policyfile.Invariant) string {
	s := strings.Join(v.Must, " or ")
	if len(v.Proxies) > 0 {
		s += " (to proxy " + strings.Join(v.Proxies, " or ") + ")"
	}
	return s
}
