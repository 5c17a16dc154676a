package policytest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// Withs are the different lists of what cases have beside their policy, in the order of
// the file.
func (s *Suite) Withs() (out [][]string) {
	for i := range s.Cases {
		with := s.Cases[i].With
		if !slices.ContainsFunc(out, func(w []string) bool { return slices.Equal(w, with) }) {
			out = append(out, with)
		}
	}
	return out
}

// Bind looks up what the cases that have this beside their policy name in it, and in
// what is beside it; proxies are the addresses of both. The error is policyfile.Errors.
func (s *Suite) Bind(policy *policyfile.File, proxies map[string]netip.AddrPort, with ...string) error {
	known := map[string][]string{}
	for _, f := range policy.Policy.Filters {
		known["filter"] = append(known["filter"], f.Name)
	}
	for _, c := range policy.Callouts {
		known["callout"] = append(known["callout"], string(c.ID))
	}
	for _, p := range policy.Proxies {
		known["proxy"] = append(known["proxy"], p.ID)
	}
	for _, p := range policy.Policy.Providers {
		known["provider"] = append(known["provider"], string(p.ID))
	}
	var errs policyfile.Errors
	for _, ref := range s.references {
		if !slices.Equal(ref.with, with) || slices.Contains(known[ref.kind], ref.name) || ref.kind == "filter" && hasFilter(policy, ref.name) {
			continue
		}
		near, hint := policyfile.Nearest(ref.name, known[ref.kind]), ""
		if near == "" {
			hint = " (" + cmp.Or(strings.Join(slices.Compact(known[ref.kind]), ", "), "it has none") + ")"
		}
		errs = append(errs, s.problem(ref.place, near, fmt.Sprintf("the policy has no %s %q%s", ref.kind, ref.name, hint)))
	}
	if len(errs) > 0 {
		return errs
	}
	for i := range s.Cases {
		c := &s.Cases[i]
		for j := range c.Steps {
			if slices.Equal(c.With, with) {
				c.Steps[j].bind(proxies)
			}
		}
	}
	return nil
}

func hasFilter(policy *policyfile.File, number string) bool {
	for _, f := range policy.Policy.Filters {
		if strconv.FormatUint(uint64(f.ID), 10) == number {
			return true
		}
	}
	return false
}

// bind puts the address of a proxy in the place of where it goes to, and the ends of the
// connection where the program sees them.
func (s *Step) bind(proxies map[string]netip.AddrPort) {
	in := &s.Incoming
	if s.toProxy != "" {
		in.Remote = proxies[s.toProxy]
	}
	if in.Inbound || s.Listen {
		*in = turned(*in)
	}
}

func turned(in fwps.Incoming) fwps.Incoming {
	in.Local, in.Remote = in.Remote, in.Local
	return in
}
