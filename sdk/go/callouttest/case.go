package callouttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/calloutd/calloutd/host/policytest"
)

// What becomes of a connection.
const (
	Permit   = policytest.Permit
	Block    = policytest.Block
	Redirect = policytest.Redirect
	// None is what is wanted where nothing may be.
	None = policytest.None
)

// A Connection is one in words. Addresses are ADDR:PORT.
type Connection struct {
	Program  string // path; empty: /usr/bin/curl
	User     uint32 // 0: 1000, unless Root
	Root     bool   // user 0
	PID      uint32 // 0: 1000
	To       string // or proxy:ID, a proxy of the policy
	From     string // empty: a socket that is not bound
	Protocol string // tcp, udp or a number; empty: tcp
	// PeerName is what the program says that its peer is called, as a proxy of kind
	// peek does.
	PeerName string
	// Inbound: the program accepts at To what comes from From.
	Inbound bool
	// Listen: the program binds to To and listens.
	Listen bool
}

// A Want says what must come of a connection. Empty parts may be anything, but
// there must be an Action, or Sound.
type Want struct {
	Action      string // Permit, Block or Redirect
	Destination string // where it goes in the end: ADDR:PORT, proxy:ID or None

	// Who made it so: all are of one filter. Of a permit it is any that was asked.
	Filter  string // name or number, or None
	Callout string // ID, or None
	Layer   string // such as ALE_AUTH_CONNECT; without _V4 or _V6 either
	Rule    string // such as ARB-06
	Reason  string // a part of it
	State   string // what the callout is told, such as redirected-by-self (redirect.State)

	// Context and Record are what a redirect gives the proxy and the callout. Nil:
	// anything; empty: none.
	Context, Record []byte

	// Sound: no callout fails or runs for ever, the answer is the same at another
	// time, no proxy's connection comes back to it, and every invariant of the
	// policy holds.
	Sound bool
}

// A Step is a connection that follows another one.
type Step struct {
	Connection
	// WithRecords: the program is the proxy that accepted the redirected connection
	// before this one, and sets its records. To is the original destination unless
	// it is given.
	WithRecords bool
	// Reauthorizes: the connection of the step before, still open, is asked about again
	// as after a change of the policy (IS_REAUTHORIZE, ALE-LAY-12). No other field of a
	// connection may be set.
	Reauthorizes bool
	Want         Want
}

// A Case is a connection, and what must come of it.
type Case struct {
	Name string
	Connection
	Want Want
	// Then are the connections that follow from it.
	Then []Step
}

// Test runs cases, each as a test of its own, in their order.
func (p *Policy) Test(t *testing.T, cases ...Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Helper()
			if wrong := p.Check(t.Context(), c); wrong != nil {
				t.Error(wrong)
			}
		})
	}
}

// Check runs a case. What is not as it was wanted, with the way through the layers,
// is an error, and so is a mistake in the case.
func (p *Policy) Check(ctx context.Context, c Case) error {
	run := policytest.Case{Name: c.Name}
	for i, s := range append([]Step{{Connection: c.Connection, Want: c.Want}}, c.Then...) {
		step, err := p.step(s, run.Steps)
		if err != nil {
			return fmt.Errorf("%s: %w", name(i), err)
		}
		run.Steps = append(run.Steps, step)
	}
	suite := &policytest.Suite{File: "case", Cases: []policytest.Case{run}}
	if err := suite.Bind(p.world.Policy, p.world.Proxies); err != nil {
		return err
	}
	r := policytest.Run(ctx, p.world, suite, []*policytest.Case{&suite.Cases[0]}, 1, policytest.NewCoverage(p.world.Policy))[0]
	if r.Passed() {
		return nil
	}
	return errors.New(explain(&r, len(c.Then) > 0))
}

// Decide takes one connection through the layers and returns what became of it,
// with every reason, and the way as text.
func (p *Policy) Decide(ctx context.Context, c Connection) (out policytest.Outcome, trace string, err error) {
	in, err := p.incoming(c, false)
	if err != nil {
		return out, "", err
	}
	if c.Inbound {
		in.Local, in.Remote = in.Remote, in.Local
	}
	r := p.world.Record()
	out, err = p.world.Decide(ctx, r, in)
	return out, r.Trace(), err
}

func name(step int) string {
	if step == 0 {
		return "the connection"
	}
	return fmt.Sprintf("Then[%d]", step-1)
}

func explain(r *policytest.Result, several bool) string {
	var b strings.Builder
	if r.Err != nil {
		fmt.Fprintf(&b, "%v\n", r.Err)
	}
	for _, s := range r.Differences {
		for _, d := range s.Differences {
			if several {
				b.WriteString(s.Step.Name + ": ")
			}
			fmt.Fprintf(&b, "%s: want %s, got %s\n", d.Key, d.Want, d.Got)
			if d.Hint != "" {
				fmt.Fprintf(&b, "  %s\n", d.Hint)
			}
		}
	}
	b.WriteString("the way through the layers:\n  ")
	b.WriteString(strings.ReplaceAll(strings.TrimRight(r.Trace, "\n"), "\n", "\n  "))
	return b.String()
}
