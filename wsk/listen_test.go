package wsk_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// One connection that AUTH_RECV_ACCEPT has not decided on holds up no other.
func TestSlowDecisionDelaysNobodyElse(t *testing.T) {
	w := open(t, wsk.Debug{})
	asked, decide := make(chan netip.AddrPort, 1), make(chan struct{})
	var calls atomic.Int32
	_, _, err := w.Engine.RegisterCallout("slow", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if calls.Add(1) == 1 {
			asked <- c.In.Remote
			<-decide
		}
		return nil
	}))
	require.NoError(t, err)
	w.Add(t, fwpm.Filter{ID: 1, Name: "slow", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionCalloutUnknown, Callout: "slow"})
	l, at := w.listen(t)
	s := w.dial(t, at)
	from := <-asked

	var remote netip.AddrPort
	for range 5 {
		c := w.dial(t, at)
		a := must(t, func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, &remote, p) })
		require.NotEqual(t, from, remote)
		shut(t, a, c)
	}
	close(decide)
	a := must(t, func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, &remote, p) })
	require.Equal(t, from, remote)
	shut(t, a, s, l)
}
