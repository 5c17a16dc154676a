package policytest

import (
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/arbitrate"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A Stand is where one filter stood in a classification that filters of several
// providers were asked in, and what became of what it said.
type Stand struct {
	Layer          string `json:"layer"`
	Provider       string `json:"provider"`
	Sublayer       string `json:"sublayer"`
	SublayerWeight uint16 `json:"sublayer_weight"`
	Filter         uint64 `json:"filter"`
	Name           string `json:"filter_name"`
	Weight         uint64 `json:"weight"`
	Says           string `json:"says"`
	Hard           bool   `json:"hard,omitempty"`
	Verdict        string `json:"verdict,omitempty"` // decides, or why it did not
}

// Provider is a provider for people: what names none is the policy's own.
func Provider(id fwpm.ProviderID) string {
	if id == "" {
		return "this policy"
	}
	return string(id)
}

// Stands say of each step of a decision where its filter stands among the others'.
func Stands(p *policyfile.File, layer fwpm.LayerID, steps []fwps.Step, deciding int) []Stand {
	out := make([]Stand, len(steps))
	for i := range steps {
		s := &steps[i]
		st := &out[i]
		*st = Stand{Layer: layer.String(), Sublayer: string(s.Sublayer), SublayerWeight: sublayerWeight(p, s.Sublayer), Filter: uint64(s.Filter), Name: s.Name,
			Says: s.Action.String(), Hard: s.Hard, Verdict: verdict(p, steps, i, deciding)}
		if s.Redirected {
			st.Says = Redirect
		}
		if f := filterOf(p, s.Filter); f != nil {
			st.Provider = Provider(f.Provider)
			st.Weight, _ = arbitrate.EffectiveWeight(f) // It was compiled with it.
		}
	}
	return out
}

func sublayerWeight(p *policyfile.File, id fwpm.SublayerID) uint16 {
	for _, s := range p.Policy.Sublayers {
		if s.ID == id {
			return s.Weight
		}
	}
	if id == fwpm.SublayerUniversal || id == "" {
		return fwpm.SublayerUniversalWeight
	}
	return 0 // inspection (BFE-SUB-03)
}

// verdict says what became of a step.
func verdict(p *policyfile.File, steps []fwps.Step, i, deciding int) string {
	s := &steps[i]
	by := func(j int) string { return fmt.Sprintf("filter %d of %s", steps[j].Filter, owner(p, &steps[j])) }
	var what []string
	if s.Reauth {
		what = append(what, "is asked again, since another one changed the request (SC-73)")
	}
	if s.Redirected {
		last := len(steps) - 1
		for !steps[last].Redirected {
			last--
		}
		if steps[last].Callout == s.Callout {
			what = append(what, "its redirect counts")
		} else {
			what = append(what, "its redirect is replaced by that of "+by(last)+" (CR-11)")
		}
	}
	decides := s.Action == fwp.ActionPermit || s.Action == fwp.ActionBlock
	switch {
	case i == deciding && s.Veto:
		what = append(what, "decides, by a veto (ARB-06)")
	case i == deciding:
		what = append(what, "decides")
	case !decides || s.Reauth || deciding < 0:
	case i < deciding && s.Action == steps[deciding].Action:
	case i < deciding && steps[deciding].Veto:
		what = append(what, "is overruled by the veto of "+by(deciding)+" (ARB-06)")
	case i < deciding:
		what = append(what, "is overruled by "+by(deciding)+": it was soft (ARB-05)")
	default:
		what = append(what, "changes nothing: "+by(deciding)+" decided hard before ("+s.Rule+")")
	}
	return strings.Join(what, "; ")
}

func owner(p *policyfile.File, s *fwps.Step) string {
	if f := filterOf(p, s.Filter); f != nil {
		return Provider(f.Provider)
	}
	return "the engine"
}

// arbitration is where the filters stood at the layers at which several providers'
// were asked.
func (x *explainer) arbitration() (out []Stand) {
	if !x.Policy.Several() {
		return nil
	}
	for i := range x.asked {
		c := &x.asked[i]
		stands := Stands(x.Policy, c.In.Layer, c.Steps, c.Deciding)
		owners := map[string]bool{}
		for _, s := range stands {
			owners[s.Provider] = true
		}
		if len(owners) > 1 {
			out = append(out, stands...)
		}
	}
	return out
}

func (s *Stand) String() string {
	t := fmt.Sprintf("%s, sublayer %s (%#04x): filter %d %q (weight %#x) says %s", s.Provider, s.Sublayer, s.SublayerWeight, s.Filter, s.Name, s.Weight, s.Says)
	if s.Hard {
		t += ", hard"
	}
	if s.Verdict != "" {
		t += ": " + s.Verdict
	}
	return t
}

func writeArbitration(b *strings.Builder, stands []Stand) {
	layer := ""
	for i := range stands {
		s := &stands[i]
		if i == 0 {
			b.WriteString("\nWho stands where, the heaviest sublayer first:\n")
		}
		if s.Layer != layer {
			layer = s.Layer
			fmt.Fprintf(b, "  %s\n", layer)
		}
		fmt.Fprintf(b, "    %s\n", s)
	}
}
