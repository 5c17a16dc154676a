package arbitrate

import (
	"slices"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Holds reports whether one condition holds for in, as a Program would find. It
// makes the condition ready each time: it is for explanations, not for decisions.
func Holds(c *fwpm.Condition, in *fwps.Incoming) bool {
	t := new(scratch).compileTest(c)
	return t.holds(in)
}

// NameMet is the name of an address by which a filter that blocks by PEER_NAME is met, the newest if
// there are several. It is empty and true where the name may be one that was forgotten. As Holds it
// is for explanations.
func NameMet(f *fwpm.Filter, names *fwps.PeerNames) (name string, met bool) {
	if names == nil || f.Action != fwp.ActionBlock {
		return "", false
	}
	var tests []test
	for i := range f.Conditions {
		if f.Conditions[i].Field == fwpm.ConditionPeerName {
			tests = append(tests, new(scratch).compileTest(&f.Conditions[i]))
		}
	}
	by := func(names *fwps.PeerNames) bool {
		return slices.ContainsFunc(tests, func(t test) bool { return t.holdsAny(names) })
	}
	for _, name := range names.Names {
		if by(&fwps.PeerNames{Names: []string{name}}) {
			return name, true
		}
	}
	return "", by(names)
}
