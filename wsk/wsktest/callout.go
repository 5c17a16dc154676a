package wsktest

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A callout redirects what is not redirected by itself yet.
type callout struct {
	w           *world
	name        string
	to          string // an address or @name, read when a call comes
	pid         uint32
	noHandle    bool
	always      bool // also its own
	record      []byte
	context     []byte
	format      []string // buffer sizes to ask the SIO format with
	hold        bool
	port        uint16 // asks of others are continued
	unregister  func() error
	heldC       chan struct{}
	mu          sync.Mutex
	seen        []sight
	formats     []string
	pended      *fwps.PendedClassify
	verdictHeld fwps.Verdict
}

type sight struct {
	state   redirect.State
	record  []byte
	context []byte
	records int
}

// Classify implements fwps.Callout.
func (c *callout) Classify(_ context.Context, call *fwps.Call, v *fwps.Verdict) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := sight{state: call.State, records: len(call.In.Records)}
	if call.Hop != nil {
		x.record, x.context = bytes.Clone(call.Hop.Record), bytes.Clone(call.Hop.Context)
	}
	c.seen = append(c.seen, x)
	own := call.State == redirect.RedirectedBySelf || call.State == redirect.PreviouslyRedirectedBySelf
	v.Action = fwp.ActionPermit
	if own && !c.always || c.port != 0 && call.In.Remote.Port() != c.port || c.to == "" {
		return nil
	}
	to, err := c.target(call)
	if err != nil {
		return err
	}
	for _, size := range c.format {
		c.ask(call, size)
	}
	c.fill(v, to)
	if c.hold && c.pended == nil {
		p, err := call.PendClassify()
		if err != nil {
			return err
		}
		c.pended = p
		c.fill(&c.verdictHeld, to)
		close(c.heldC)
	}
	return nil
}

func (c *callout) fill(v *fwps.Verdict, to netip.AddrPort) {
	v.Action, v.Redirect, v.To, v.TargetPID, v.NoHandle = fwp.ActionPermit, true, to, c.pid, c.noHandle
	v.Record, v.Context = append(v.Record[:0], c.record...), append(v.Context[:0], c.context...)
}

func (c *callout) target(call *fwps.Call) (netip.AddrPort, error) {
	to, err := c.w.addr(c.to)
	if r := call.In.Remote.Addr(); r.Is4In6() && to.Addr().Is4() {
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	return to, err
}

// ask is FwpsQueryConnectionSioFormatRedirectRecords0 with a buffer of a size:
// a number, or exact.
func (c *callout) ask(call *fwps.Call, size string) {
	var buf []byte
	n, _ := call.QuerySIOFormatRedirectRecords(nil)
	switch size {
	case "exact":
		buf = make([]byte, n)
	case "short":
		buf = make([]byte, n-1)
	}
	n, st := call.QuerySIOFormatRedirectRecords(buf)
	c.formats = append(c.formats, fmt.Sprintf("%v:%v", st, n > 0))
	if st == ntstatus.Success {
		c.w.mu.Lock()
		c.w.blobs["format-"+c.name] = buf
		c.w.mu.Unlock()
	}
}

func (c *callout) complete() {
	c.mu.Lock()
	p, v := c.pended, c.verdictHeld
	c.mu.Unlock()
	p.Complete(&v)
}
