package arbitrate

import (
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Holds reports whether one condition holds for in, as a Program would find. It
// makes the condition ready each time: it is for explanations, not for decisions.
func Holds(c *fwpm.Condition, in *fwps.Incoming) bool {
	t := new(scratch).compileTest(c)
	return t.holds(in)
}
