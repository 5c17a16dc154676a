package ale

import (
	"context"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
)

// A grant is a bind or listen that was permitted with the help of a callout that
// wants to be asked again (fwps.Reclassifier).
type grant struct {
	mu         sync.Mutex
	in         fwps.Incoming
	generation uint64 // of the layer when it was asked last
	refused    error  // since then
}

// grant asks a layer whose block ends the operation. The grant is nil if nobody
// wants to be asked again.
func (e *Enforcer) grant(ctx context.Context, in *fwps.Incoming) (*grant, error) {
	generation := e.opts.Classifier.Generation(in.Layer)
	s := e.classify(ctx, in)
	defer e.done(s)
	switch {
	case s.d.Action != fwp.ActionPermit:
		return nil, blocked(in, &s.d)
	case s.d.Reclassify:
		return &grant{in: *in, generation: generation}, context.Cause(ctx)
	}
	return nil, context.Cause(ctx)
}

// granted notes a grant of the socket, if it is one.
func (s *Socket) granted(g *grant) {
	if g == nil {
		return
	}
	s.mu.Lock()
	s.grants = append(s.grants, g)
	s.mu.Unlock()
}

// reclassify asks about the socket's binds and listens again, with IS_RECLASSIFY,
// if the filters of their layer changed since. It is called for each operation;
// a *BlockedError refuses that, until the policy changes again.
func (s *Socket) reclassify(ctx context.Context) error {
	s.mu.Lock()
	grants := s.grants
	s.mu.Unlock()
	for _, g := range grants {
		if err := g.again(ctx, s.e); err != nil {
			return err
		}
	}
	return nil
}

func (g *grant) again(ctx context.Context, e *Enforcer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := e.opts.Classifier.Generation(g.in.Layer)
	if now == g.generation {
		return g.refused
	}
	in := g.in
	in.Flags |= fwp.FlagIsReclassify
	err := e.decide(ctx, &in)
	if context.Cause(ctx) != nil { // It is who asked that ended: the next one asks again.
		return err
	}
	g.generation, g.refused = now, err
	return err
}
