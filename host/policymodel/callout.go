package policymodel

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
)

// Callout makes what a model of a callout does, with its configuration in JSON.
func Callout(m policyfile.Model, config []byte) (fwps.Callout, error) {
	switch m {
	case policyfile.ModelRedirector:
		r := new(redirector)
		if err := strict(config, r); err != nil {
			return nil, err
		}
		return r, r.parse()
	case policyfile.ModelBlocker:
		b := &blocker{Hard: true}
		return b, strict(config, b)
	}
	return nil, fmt.Errorf("%q is no model of a callout", m)
}

// strict reads JSON whose keys are all known; none is an empty object.
func strict(config []byte, into any) error {
	if len(config) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var of *json.UnmarshalTypeError
	switch {
	case errors.As(err, &of):
		return fmt.Errorf("config: %s: found a %s, which it cannot be", cmp.Or(of.Field, "the configuration"), of.Value)
	case err != nil:
		return errors.New("config: " + strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// A redirector is a callout that sends connections to its own proxy as the pages about
// redirection have it, but for what its configuration says.
type redirector struct {
	To []string `json:"to"` // the first of the connection's family counts
	// Reauthorize: it is asked again when another one changes the request (CH-05).
	Reauthorize bool `json:"reauthorize_if_modified_by_others"`
	Hard        bool `json:"hard"`
	// TrustsOthers: what another's proxy makes goes on (RS-02 leaves it open).
	TrustsOthers bool `json:"trusts_others"`
	// TakesFromOthers: it redirects what another local proxy owns (against CR-11).
	TakesFromOthers bool `json:"takes_from_others"`
	// IgnoresState: it redirects its own proxy's connections again (SC-34).
	IgnoresState bool `json:"ignores_redirect_state"`

	to []netip.AddrPort
}

func (r *redirector) parse() error {
	for _, s := range r.To {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return fmt.Errorf("config: to: expected an address and a port such as 127.0.0.1:7000, found %q", s)
		}
		r.to = append(r.to, a)
	}
	if len(r.to) == 0 {
		return errors.New("config: to is missing: where its proxy listens, such as [\"${proxy:ID}\"]")
	}
	return nil
}

// Classify implements fwps.Callout.
func (r *redirector) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	if c.Connect == nil {
		v.Reason = c.In.Layer.String() + " has no request to change (CH-02)"
		return nil
	}
	if why := r.leaves(c); why != "" {
		v.Action, v.Reason = fwp.ActionPermit, why
		return nil
	}
	to, ok := r.target(c.Connect.Remote.Addr())
	if !ok {
		v.Reason = "its proxy is not reached over this family (CR-07)"
		return nil
	}
	v.Action, v.ClearActionRight = fwp.ActionPermit, r.Hard
	v.Redirect, v.To, v.TargetPID, v.ReauthorizeIfModifiedByOthers = true, to, modelPID, r.Reauthorize
	return nil
}

// modelPID is the process of a model's proxy: only zero would matter (CR-02).
const modelPID = 2

// leaves says why it does not redirect, empty if it does.
func (r *redirector) leaves(c *fwps.Call) string {
	switch {
	case c.State == redirect.RedirectedBySelf && !r.IgnoresState:
		return "its own proxy's connection (RS-02)"
	case c.State == redirect.PreviouslyRedirectedBySelf && !r.IgnoresState:
		return "its proxy had the connection before: redirecting it again would be a loop (RS-05)"
	case c.State == redirect.RedirectedByOther && r.TrustsOthers:
		return "another product's proxy, which it trusts (RS-02)"
	case c.Rights&fwps.RightActionWrite == 0:
		return "a heavier sublayer decided hard: the request may not be changed (CH-15)"
	case r.TakesFromOthers:
		return ""
	}
	for q := c.Connect; q != nil; q = q.Previous {
		if q.ModifierCallout != "" && q.ModifierCallout != c.Filter.Callout && q.LocalRedirectHandle != 0 {
			return fmt.Sprintf("the local proxy of callout %q owns the connection already; this one is asked again when that proxy connects (CR-11)", q.ModifierCallout)
		}
	}
	return ""
}

// target is the proxy's address in the family of the layer; an IPv4 one is written as
// v4-mapped where the destination is.
func (r *redirector) target(like netip.Addr) (netip.AddrPort, bool) {
	for _, to := range r.to {
		switch {
		case to.Addr().Unmap().Is4() != like.Unmap().Is4():
		case like.Is4In6():
			return netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port()), true
		default:
			return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// A blocker is a callout that blocks: over a hard permit that is a veto (ARB-06), which
// a filter's block is not (ARB-07).
type blocker struct {
	Reason string `json:"reason"`
	Hard   bool   `json:"hard"` // default: true (CO-CLS-07)
}

// Classify implements fwps.Callout.
func (b *blocker) Classify(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
	v.Action, v.ClearActionRight, v.Reason = fwp.ActionBlock, b.Hard, b.Reason
	return nil
}
