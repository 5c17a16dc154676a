//go:build linux && (amd64 || arm64)

package seccomp

import (
	"context"
	"sync"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// layers is a classifier as a table, which notes what it is asked.
type layers struct {
	mu   sync.Mutex
	seen []fwps.Incoming
	at   map[fwpm.LayerID]func(in *fwps.Incoming, d *fwps.Decision)
}

func (l *layers) Classify(_ context.Context, in *fwps.Incoming, d *fwps.Decision) {
	d.Reset(in)
	l.mu.Lock()
	l.seen = append(l.seen, *in)
	l.mu.Unlock()
	if f := l.at[in.Layer]; f != nil {
		f(in, d)
	}
}

func (*layers) Generation(fwpm.LayerID) uint64 { return 0 }

func (*layers) ReauthorizeReason(fwpm.LayerID, uint64) fwp.ReauthorizeReason { return 0 }

func (*layers) TestsLocal(fwpm.LayerID) bool { return false }

func (l *layers) enforcer() *ale.Enforcer {
	return ale.New(ale.Options{Classifier: l, Store: memstore.New(0)})
}

func blockIf(cond func(in *fwps.Incoming) bool) func(*fwps.Incoming, *fwps.Decision) {
	return func(in *fwps.Incoming, d *fwps.Decision) {
		if cond(in) {
			d.Action = fwp.ActionBlock
		}
	}
}
