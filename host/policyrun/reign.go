package policyrun

import (
	"context"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A reign is the time in which one policy decides. Its generations begin where those
// of the one before ended, so that every flow is authorized again (ALE-LAY-12).
type reign struct {
	policy     *Policy // nil: none yet
	classifier fwps.Classifier
	base       uint64
}

// A throne is the fwps.Classifier that the layers ask: it asks the policy in force.
type throne struct{ *Runner }

func (t throne) Classify(ctx context.Context, in *fwps.Incoming, d *fwps.Decision) {
	t.reign.Load().classifier.Classify(ctx, in, d)
}

func (t throne) Generation(l fwpm.LayerID) uint64 {
	r := t.reign.Load()
	return r.base + r.classifier.Generation(l)
}

func (t throne) ReauthorizeReason(l fwpm.LayerID, since uint64) fwp.ReauthorizeReason {
	r := t.reign.Load()
	if since < r.base {
		return fwp.ReasonPolicyChange
	}
	return r.classifier.ReauthorizeReason(l, since-r.base)
}

func (t throne) TestsLocal(l fwpm.LayerID) bool {
	return t.reign.Load().classifier.TestsLocal(l)
}

// enter lets a policy reign, from one classification to the next.
func (r *Runner) enter(p *Policy) {
	old := r.reign.Load()
	next := &reign{policy: p, classifier: p.classifier}
	for l := range fwpm.NumLayers {
		next.base = max(next.base, old.base+old.classifier.Generation(fwpm.LayerID(l))+1)
	}
	r.reign.Store(next)
}

// An interregnum decides while there is no policy yet: nothing is connected. The
// proxies of the first one may bind and listen.
type interregnum struct{ process uint32 }

var noPolicy = fwpm.Filter{Name: "no policy yet", Action: fwp.ActionBlock}

func (i interregnum) Classify(_ context.Context, in *fwps.Incoming, d *fwps.Decision) {
	d.Reset(in)
	if !in.Layer.Offers(fwpm.ConditionIPRemoteAddress) && in.ProcessID == i.process {
		return
	}
	*d.PushStep() = fwps.Step{Layer: in.Layer, Sublayer: fwpm.SublayerUniversal, Filter: noPolicy.ID, Name: noPolicy.Name,
		Action: noPolicy.Action, Hard: true, Rule: "ARB-01", Why: "no policy is in force yet"}
	d.Action, d.Rights, d.Deciding = fwp.ActionBlock, 0, 0
}

func (interregnum) Generation(fwpm.LayerID) uint64 { return 0 }

func (interregnum) ReauthorizeReason(fwpm.LayerID, uint64) fwp.ReauthorizeReason { return 0 }

func (interregnum) TestsLocal(fwpm.LayerID) bool { return false }
