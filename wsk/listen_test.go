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

// Connections that AUTH_RECV_ACCEPT has not decided on hold up no other, also not more
// of them than a listener has goroutines to wait with; and all are accepted in the end.
func TestSlowDecisionsDelayNobodyElse(t *testing.T) {
	const slow = 40
	w := open(t, wsk.Debug{})
	asked, decide := make(chan netip.AddrPort, slow), make(chan struct{})
	var calls atomic.Int32
	_, _, err := w.Engine.RegisterCallout("slow", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if calls.Add(1) <= slow {
			asked <- c.In.Remote
			<-decide
		}
		return nil
	}))
	require.NoError(t, err)
	w.Add(t, fwpm.Filter{ID: 1, Name: "slow", Layer: fwpm.LayerALEAuthRecvAcceptV4, Action: fwp.ActionCalloutUnknown, Callout: "slow"})
	l, at := w.listen(t)
	var sockets []*wsk.Socket
	var from, got []netip.AddrPort
	for range slow {
		sockets = append(sockets, w.dial(t, at))
		from = append(from, <-asked)
	}

	var remote netip.AddrPort
	for range 5 {
		c := w.dial(t, at)
		a := must(t, func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, &remote, p) })
		require.NotContains(t, from, remote)
		shut(t, a, c)
	}
	close(decide)
	for range slow {
		sockets = append(sockets, must(t, func(p *wsk.IRP) ntstatus.Status { return l.Accept(0, nil, nil, nil, &remote, p) }))
		got = append(got, remote)
	}
	require.ElementsMatch(t, from, got)
	shut(t, append(sockets, l)...)
}
