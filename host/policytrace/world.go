package policytrace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
)

// World is a policy for cases, with traces that are the texts of a Reader.
func World(p *policyrun.Policy) *policytest.World {
	return &policytest.World{Policy: p.File, Classifier: p.Engine, Handles: p.Handles, Proxies: p.Proxies,
		NewTrace: func() policytest.Trace { return &written{r: Reader{Policy: p}} }}
}

// A written is a trace in memory.
type written struct {
	r Reader
	b strings.Builder
}

func (w *written) line(_ Event, text string) {
	if text != "" {
		fmt.Fprintln(&w.b, text)
	}
}

func (w *written) Decision(in *fwps.Incoming, d *fwps.Decision) { w.line(w.r.Decision(in, d)) }
func (w *written) Redirect(ev ale.RedirectEvent)                { w.line(w.r.Redirect(ev)) }
func (w *written) Blocked(b *ale.BlockedError)                  { w.line(w.r.Blocked(b, netip.AddrPort{})) }
func (w *written) String() string                               { return w.b.String() }
