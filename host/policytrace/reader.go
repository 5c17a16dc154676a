package policytrace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
)

// A Reader tells what the layers say of connections that a policy decides: each of
// its methods returns the event and the text, which holds what others wrote cleaned.
type Reader struct {
	Policy *policyrun.Policy // Required.
	// Paint decorates the word for what became of a connection, such as "blocked".
	// Optional.
	Paint func(word string) string
	// Details ask for more. Optional: only who was asked is told.
	Details *Details
}

func (r Reader) paint(word string) string {
	if r.Paint == nil {
		return word
	}
	return r.Paint(word)
}

// Decision is a classification: the layer, and each filter that was asked.
func (r Reader) Decision(in *fwps.Incoming, d *fwps.Decision) (Event, string) {
	e := Event{Event: "classify", Layer: in.Layer.String(), Program: in.AppID, PID: in.ProcessID, Action: d.Action.String(),
		Protocol: protocolName(in.Protocol), Inbound: in.Inbound, Flags: in.ConditionFlags().Names(), Original: addr(in.OriginalDestination), PeerName: in.Other[fwpm.ConditionPeerName].Text}
	from, to := in.Local, in.Remote
	switch {
	case !in.Layer.Offers(fwpm.ConditionIPRemoteAddress):
		to = netip.AddrPort{}
	case in.Inbound:
		from, to = to, from
	}
	e.From, e.To, e.Proxy = addr(from), addr(to), r.Policy.ProxyID(to)
	lines := []string{fmt.Sprintf("%-26s %s: %s", e.Layer, r.who(e, in), r.paint(e.Action))}
	if s := d.Decider(); s != nil {
		if name, also := r.met(s.Filter, in.PeerNames); also != "" {
			e.PeerName = name
		}
	}
	stands := r.stands(in, d)
	for i := range d.Steps {
		s := r.step(in, d, i)
		s.stand(stands, i)
		e.Steps = append(e.Steps, s)
		lines = append(lines, "    "+r.describe(s))
		lines = append(lines, r.Details.of(&s)...)
	}
	if len(d.Steps) == 0 {
		lines = append(lines, "    no filter matches (ARB-09)")
	}
	if d.Action == fwp.ActionBlock && !d.Faulted && (in.Layer.IsConnectRedirect() || in.Layer.IsBindRedirect()) {
		lines = append(lines, "    a block at this layer stops nothing (CH-16): it goes on")
	}
	lines = append(lines, r.passedBy(&e, in, d)...)
	return e, strings.Join(lines, "\n")
}

// stands are where filters stood among those of other providers; nil where there are
// none beside the policy and nobody asks.
func (r Reader) stands(in *fwps.Incoming, d *fwps.Decision) []policytest.Stand {
	if !r.Policy.File.Several() && r.Details == nil {
		return nil
	}
	return policytest.Stands(r.Policy.File, in.Layer, d.Steps, d.Deciding)
}

// stand fills in where a filter stood.
func (s *Step) stand(stands []policytest.Stand, i int) {
	if stands == nil {
		return
	}
	st := &stands[i]
	s.Provider, s.SublayerWeight, s.Weight, s.Verdict = st.Provider, &st.SublayerWeight, &st.Weight, st.Verdict
}

// addr is empty for an address that is not known, or not yet.
func addr(a netip.AddrPort) string {
	if !a.IsValid() || a.Addr().IsUnspecified() && a.Port() == 0 {
		return ""
	}
	return a.String()
}

func (r Reader) who(e Event, in *fwps.Incoming) string {
	s := Program(e.Program, e.PID)
	switch {
	case !in.Layer.Offers(fwpm.ConditionIPRemoteAddress), !in.Remote.IsValid(): // A socket that listened has no peer.
		return s + " at " + in.Local.String()
	case in.Inbound:
		return s + " <- " + e.From
	case in.Flags&fwp.FlagIsHonoringPolicyAuthorize != 0:
		return s + " -> " + r.To(in.Remote) + " as if it were not redirected (ALE-LAY-15)"
	}
	return s + " -> " + r.To(in.Remote)
}

// Program is how a process is called. Zero is the number of one that is not known.
func Program(app string, pid uint32) string {
	if app == "" {
		app = "unknown program"
	}
	if pid == 0 {
		return Clean(app)
	}
	return fmt.Sprintf("%s[%d]", Clean(app), pid)
}

// To is an address, with the proxy of the policy that has it.
func (r Reader) To(a netip.AddrPort) string {
	if p := r.Policy.ProxyID(a); p != "" {
		return fmt.Sprintf("%s (proxy %s)", a, p)
	}
	return a.String()
}

func (r Reader) step(in *fwps.Incoming, d *fwps.Decision, i int) Step {
	s := &d.Steps[i]
	out := Step{Filter: uint64(s.Filter), Name: s.Name, Place: r.Policy.File.Place(s.Filter), Sublayer: string(s.Sublayer),
		Callout: string(s.Callout), Action: s.Action.String(), Hard: s.Hard, Veto: s.Veto, Rule: s.Rule, Why: s.Why}
	if h, ok := r.Policy.Handles[s.Callout]; ok && in.Layer.IsConnectRedirect() {
		st, _ := in.Records.State(h)
		out.State = st.String()
	}
	if s.Redirected {
		out.Action, out.To = "redirect", r.To(target(d, s.Filter))
	}
	if _, also := r.met(s.Filter, in.PeerNames); also != "" {
		out.Why = also
	}
	r.detail(&out, in, d)
	return out
}

// met is the name of an address that a filter is met by that blocks by name, and says so where it is not
// the newest.
func (r Reader) met(id fwpm.FilterID, names *fwps.PeerNames) (name, also string) {
	if names == nil {
		return "", ""
	}
	i := slices.IndexFunc(r.Policy.File.Policy.Filters, func(f fwpm.Filter) bool { return f.ID == id })
	if i < 0 {
		return "", ""
	}
	name, met := arbitrate.NameMet(&r.Policy.File.Policy.Filters[i], names)
	switch {
	case !met, len(names.Names) > 0 && name == names.Names[0]:
		return name, ""
	case name == "":
		return "", "the address may be called so: names of it were forgotten"
	}
	return name, "the address is also called " + name
}

// target is where a filter's callout wants the request to go: the newest version
// of it that is the filter's.
func target(d *fwps.Decision, f fwpm.FilterID) netip.AddrPort {
	if v := version(d.Connect, f); v != nil {
		return v.Remote
	}
	for r := d.Bind; r != nil; r = r.Previous {
		if r.ModifierFilterID == f {
			return r.Local
		}
	}
	return netip.AddrPort{}
}

// version is the newest version of a request that is the filter's, nil for none.
func version(r *fwps.ConnectRequest, f fwpm.FilterID) *fwps.ConnectRequest {
	for ; r != nil; r = r.Previous {
		if r.ModifierFilterID == f {
			return r
		}
	}
	return nil
}

func namedFilter(id uint64, name, place string) string {
	s := fmt.Sprintf("filter %d %q", id, name)
	if place != "" {
		s += fmt.Sprintf(" (%s)", place)
	}
	return s
}

// standing says whose a filter is and where it stands, as far as that is told.
func standing(provider string, weight *uint64, sublayer string, sublayerWeight *uint16) string {
	s := ""
	if provider != "" {
		s = " of " + provider
	}
	if weight != nil {
		s += fmt.Sprintf(", weight %#x,", *weight)
	}
	s += " in " + sublayer
	if sublayerWeight != nil {
		s += fmt.Sprintf(" (%#04x)", *sublayerWeight)
	}
	return s
}

func (r Reader) describe(s Step) string {
	var b strings.Builder
	b.WriteString(namedFilter(s.Filter, s.Name, s.Place) + standing(s.Provider, s.Weight, s.Sublayer, s.SublayerWeight))
	if s.Callout != "" {
		fmt.Fprintf(&b, " asks callout %q", s.Callout)
	}
	if s.State != "" {
		fmt.Fprintf(&b, " (%s)", s.State)
	}
	fmt.Fprintf(&b, ": %s", r.paint(s.Action))
	if s.To != "" {
		b.WriteString(" to " + s.To)
	}
	if s.Hard {
		b.WriteString(", hard")
	}
	if s.Veto {
		b.WriteString(", a veto")
	}
	if s.Why != "" {
		b.WriteString(": " + Clean(s.Why))
	}
	b.WriteString(Rule(s.Rule))
	if s.Verdict != "" {
		fmt.Fprintf(&b, " [%s]", s.Verdict)
	}
	return b.String()
}
