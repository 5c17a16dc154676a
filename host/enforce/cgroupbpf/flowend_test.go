//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// askAlso asks at FLOW_ESTABLISHED, too.
func askAlso() *fwpm.Policy {
	filters := append(askAll(), fwpm.Filter{ID: 3, Name: "established", Layer: fwpm.LayerALEFlowEstablishedV4, Action: fwp.ActionCalloutUnknown, Callout: "c"})
	return &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: filters}
}

// ALE-LAY-11: a flow that has idled out is decided anew, and goes where it may now; the
// datagram that began it, too.
func TestDatagramsGoWhereTheNewFlowMay(t *testing.T) {
	var to atomic.Pointer[netip.AddrPort]
	serve := func(word string, answered func()) netip.AddrPort {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		go func() {
			for b := make([]byte, 64); ; {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				answered()
				_, _ = c.WriteTo([]byte(word), from)
			}
		}()
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	two := serve("two", func() {})
	one := serve("one", func() { to.Store(&two) })
	to.Store(&one)
	s := newSite(t, askAlso(), fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		if v.Action = fwp.ActionPermit; c.Connect != nil {
			v.Redirect, v.To, v.TargetPID = true, *to.Load(), uint32(os.Getpid())
		}
		return nil
	}))
	s.ale = ale.New(ale.Options{Classifier: s.engine, Store: memstore.New(0), FlowIdle: time.Nanosecond})
	s.opts.ALE = s.ale
	defer s.attach(t).Close()
	const origin = "203.0.113.10:53"
	require.Equal(t, []string{"one from " + origin + ", two from " + origin}, s.run(t, "sends/"+origin))
}

// CO-FLW-03: a flow of datagrams that a callout aborts is not carried any more. The next
// datagram begins another one.
func TestDatagramFlowsAreAborted(t *testing.T) {
	one := greet(t, "udp4", "127.0.0.1:0", "one", nil)
	var flow atomic.Pointer[fwps.Flow]
	var abort atomic.Bool // once
	s := newSite(t, askAlso(), fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		if v.Action = fwp.ActionPermit; c.In.Flow != nil {
			flow.Store(c.In.Flow)
			if abort.Swap(false) {
				c.In.Flow.Abort()
			}
		}
		return nil
	}))
	a := s.attach(t)
	defer a.Close()
	word := "one from " + one.String()
	require.Equal(t, []string{word + ", " + word}, s.run(t, "sends/"+one.String()))
	require.EqualValues(t, 1, a.Datagrams().Flows)
	flow.Load().Abort()
	require.Eventually(t, func() bool { return a.Datagrams().Flows == 0 }, time.Minute, time.Millisecond)

	abort.Store(true)
	require.Equal(t, []string{"EHOSTUNREACH", word}, s.run(t, "udp/"+one.String(), "udp/"+one.String()))
}
