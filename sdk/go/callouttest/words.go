package callouttest

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
)

// step is the i-th, after the ones before it.
func (p *Policy) step(s Step, before []policytest.Step) (policytest.Step, error) {
	i := len(before)
	out := policytest.Step{Name: name(i), Listen: s.Listen, RecordsOf: -1, Reauthorizes: -1}
	if s.WithRecords {
		out.RecordsOf = i - 1
	}
	var err error
	if s.Reauthorizes {
		return p.reauthorizes(s, out, before)
	}
	if out.Incoming, err = p.incoming(s.Connection, s.WithRecords); err == nil {
		out.Want, err = p.wants(s.Want)
	}
	return out, err
}

// reauthorizes is a step about the connection of the one before, or of the one that that
// is about.
func (p *Policy) reauthorizes(s Step, out policytest.Step, before []policytest.Step) (_ policytest.Step, err error) {
	last := len(before) - 1
	switch {
	case s.Connection != (Connection{}) || s.WithRecords:
		return out, errors.New("field Reauthorizes: the connection is that of the step before, as it was: no other field of a connection may be set")
	case before[last].Listen:
		return out, errors.New("field Reauthorizes: the step before listens, and only connections are asked about again")
	case s.Want.Sound:
		return out, errors.New("field Sound: it is of the step that connects, not of one with Reauthorizes")
	}
	if out.Reauthorizes = before[last].Reauthorizes; out.Reauthorizes < 0 {
		out.Reauthorizes = last
	}
	out.Want, err = p.wants(s.Want)
	return out, err
}

func (p *Policy) incoming(c Connection, withRecords bool) (in fwps.Incoming, err error) {
	in = fwps.Incoming{AppID: cmp.Or(c.Program, "/usr/bin/curl"), ProcessID: cmp.Or(c.PID, 1000), UserID: cmp.Or(c.User, 1000), UserKnown: true, Inbound: c.Inbound}
	if c.Root {
		in.UserID = 0
	}
	if in.Protocol, err = policytest.ParseProtocol(cmp.Or(c.Protocol, "tcp")); err != nil {
		return in, fmt.Errorf("field Protocol: %w", err)
	}
	if c.To != "" || !withRecords {
		if in.Remote, err = p.address("To", c.To); err != nil {
			return in, err
		}
	}
	if c.From != "" || c.Inbound {
		if in.Local, err = p.address("From", c.From); err != nil {
			return in, err
		}
	}
	if c.PeerName != "" {
		in.Other = policytest.PeerNamed(c.PeerName)
	}
	switch {
	case c.Inbound && c.Listen:
		return in, errors.New("fields Inbound and Listen exclude each other")
	case in.Local.IsValid() && in.Remote.IsValid() && in.Local.Addr().Is4() != in.Remote.Addr().Is4():
		return in, fmt.Errorf("addresses From %s and To %s are of two address families", in.Local, in.Remote)
	}
	return in, nil
}

func (p *Policy) address(field, s string) (netip.AddrPort, error) {
	if id, ok := strings.CutPrefix(s, "proxy:"); ok {
		if a, ok := p.world.Proxies[id]; ok {
			return a, nil
		}
		return netip.AddrPort{}, fmt.Errorf("%s %q: the policy has no such proxy", field, s)
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%s %q: expected an address and a port, such as 198.51.100.7:80", field, s)
	}
	return a, nil
}

// wants checks what can be misspelt.
func (p *Policy) wants(w Want) (out []policytest.Want, err error) {
	if w.Action == "" && !w.Sound {
		return nil, errors.New("a Want needs an Action, or Sound")
	}
	if w.Destination != "" && w.Destination != None {
		if _, err := p.address("Destination", w.Destination); err != nil {
			return nil, err
		}
	}
	err = errors.Join(isOne("Action", w.Action, []string{Permit, Block, Redirect}), isOne("Layer", w.Layer, layers()),
		isOne("Filter", w.Filter, p.filters()), isOne("Callout", w.Callout, p.callouts()))
	if err != nil {
		return nil, err
	}
	sound := ""
	if w.Sound {
		sound = "true"
	}
	for _, k := range []struct{ key, text string }{{"action", w.Action}, {"destination", w.Destination}, {"filter", w.Filter}, {"callout", w.Callout},
		{"layer", w.Layer}, {"rule", w.Rule}, {"reason", w.Reason}, {"redirect_state", w.State}, {"sound", sound}} {
		if k.text != "" {
			out = append(out, policytest.Want{Key: k.key, Text: k.text})
		}
	}
	for _, k := range []struct {
		key   string
		bytes []byte
	}{{"context", w.Context}, {"record", w.Record}} {
		if k.bytes != nil {
			out = append(out, policytest.Want{Key: k.key, Bytes: k.bytes})
		}
	}
	return out, nil
}

func isOne(field, s string, known []string) error {
	if s == "" || s == None && field != "Action" || slices.Contains(known, s) {
		return nil
	}
	if near := policyfile.Nearest(s, known); near != "" {
		return fmt.Errorf("%s %q: there is none (did you mean %q?)", field, s, near)
	}
	return fmt.Errorf("%s %q: there is none, but %s", field, s, cmp.Or(strings.Join(known, ", "), "nothing"))
}

func layers() (out []string) {
	for _, l := range fwpm.Layers() {
		name := l.String()
		out = append(out, name, strings.TrimSuffix(strings.TrimSuffix(name, "_V4"), "_V6"))
	}
	return out
}

// filters are the names and the numbers.
func (p *Policy) filters() (out []string) {
	for i := range p.world.Policy.Policy.Filters {
		f := &p.world.Policy.Policy.Filters[i]
		out = append(out, f.Name, strconv.FormatUint(uint64(f.ID), 10))
	}
	return out
}

func (p *Policy) callouts() (out []string) {
	for i := range p.world.Policy.Policy.Callouts {
		out = append(out, string(p.world.Policy.Policy.Callouts[i].ID))
	}
	return out
}
