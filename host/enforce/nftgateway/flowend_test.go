//go:build linux

package nftgateway

import (
	"context"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// asking is an enforcer that asks a callout at two layers of IPv4.
func asking(t *testing.T, idle time.Duration, callout fwps.CalloutFunc) *ale.Enforcer {
	e := host.New(host.Options{})
	_, _, err := e.RegisterCallout("test", callout)
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "test", Name: "test"}}
		for i, l := range []fwpm.LayerID{fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEFlowEstablishedV4} {
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(i + 1), Name: "ask", Layer: l, Action: fwp.ActionCalloutUnknown, Callout: "test"})
		}
		return nil
	}))
	return ale.New(ale.Options{Classifier: e, Store: memstore.New(0), FlowIdle: idle})
}

// ALE-LAY-11: a flow that has idled out is decided anew, and goes where it may now; the
// datagram that began it, too.
func TestDatagramsGoWhereTheNewFlowMay(t *testing.T) {
	router(t, func(n *network) {
		one, two := n.echo(must(netns.Get()), "127.0.0.1:0", "one"), n.echo(must(netns.Get()), "127.0.0.1:0", "two")
		var to atomic.Pointer[netip.AddrPort]
		to.Store(&one)
		decides := asking(t, time.Nanosecond, func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if v.Action = fwp.ActionPermit; c.Connect != nil {
				v.Redirect, v.To, v.TargetPID = true, *to.Load(), uint32(os.Getpid())
			}
			return nil
		})
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: decides, Transparent: true, Logf: t.Logf})
		require.NoError(t, err)
		defer g.Close()
		c, origin := n.client("198.18.0.2:0"), netip.MustParseAddrPort("203.0.113.10:53")
		for _, at := range []*netip.AddrPort{&one, &two, &one} {
			to.Store(at)
			for range 2 {
				want := map[*netip.AddrPort]string{&one: "one", &two: "two"}[at]
				require.Equal(t, want+" heard hello from 127.0.0.1", n.ask(c, origin, "hello"))
			}
		}
	})
}

// CO-FLW-03: a flow of datagrams that a callout aborts is not carried any more. The next
// datagram begins another one.
func TestDatagramFlowsAreAborted(t *testing.T) {
	router(t, func(n *network) {
		one := n.echo(n.outside, "198.18.1.2:0", "one")
		var flow atomic.Pointer[fwps.Flow]
		var begun atomic.Int64
		var at atomic.Bool // once
		decides := asking(t, 0, func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if v.Action = fwp.ActionPermit; c.In.Flow != nil {
				flow.Store(c.In.Flow)
				begun.Add(1)
				if at.Swap(false) {
					c.In.Flow.Abort()
				}
			}
			return nil
		})
		denied := make(chan enforce.Denial, 1)
		g, err := Start(t.Context(), Options{Interfaces: []string{"in"}, ALE: decides, Transparent: true, Logf: t.Logf, OnBlocked: func(d enforce.Denial) { denied <- d }})
		require.NoError(t, err)
		defer g.Close()
		c := n.client("198.18.0.2:0")
		for range 2 {
			require.Equal(t, "one heard hello from 198.18.1.1", n.ask(c, one, "hello"))
			require.Equal(t, "one heard hello from 198.18.1.1", n.ask(c, one, "hello"))
			flow.Load().Abort()
			require.Eventually(t, func() bool { return g.Datagrams().Flows == 0 }, time.Minute, time.Millisecond)
		}
		require.EqualValues(t, 2, begun.Load())

		at.Store(true)
		n.send(c, one, "hello")
		require.ErrorIs(t, (<-denied).Err, ale.ErrAborted)
		require.Equal(t, "one heard again from 198.18.1.1", n.ask(c, one, "again"))
	})
}
