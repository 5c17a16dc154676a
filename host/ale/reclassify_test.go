package ale_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// again is a callout that wants to be asked about binds again.
type again struct{ fwps.CalloutFunc }

func (again) AllowReclassify() {}

// bound is a socket whose bind again permitted, under a policy that changed since.
func bound(t *testing.T, c fwps.CalloutFunc) (*host.Engine, *ale.Socket) {
	e := engine(t, nil, again{c}, fwpm.LayerALEResourceAssignmentV4)
	s := ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}).NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP})
	t.Cleanup(s.Close)
	_, err := s.Bind(t.Context(), client, func(context.Context, netip.AddrPort) (netip.AddrPort, error) { return client, nil })
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Filters[0].Name = "changed"
		return nil
	}))
	return e, s
}

// CO-FLG-01: who gave up waiting for the answer has decided nothing for others.
func TestACallThatEndedDoesNotRefuseTheNext(t *testing.T) {
	_, s := bound(t, func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _, err := s.SendTo(ctx, origin)
	require.ErrorIs(t, err, context.Canceled)
	_, _, _, err = s.SendTo(t.Context(), origin)
	require.NoError(t, err)
}

// CO-FLG-01: also a bind that nobody asked for.
func TestAnImplicitBindIsAskedAboutAgain(t *testing.T) {
	e := engine(t, nil, again{func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Flags&fwp.FlagIsReclassify != 0 {
			v.Action = fwp.ActionBlock
		}
		return nil
	}}, fwpm.LayerALEResourceAssignmentV4)
	s := ale.New(ale.Options{Classifier: e, Store: memstore.New(0)}).NewSocket(fwps.Incoming{Protocol: fwps.ProtocolUDP})
	defer s.Close()
	_, _, _, err := s.SendTo(t.Context(), origin)
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Filters[0].Name = "changed"
		return nil
	}))
	var blocked *ale.BlockedError
	_, _, _, err = s.SendTo(t.Context(), client)
	require.ErrorAs(t, err, &blocked)
}

// AMB-43: the close ends what a callout holds of a socket's bind, too.
func TestCloseEndsAReclassification(t *testing.T) {
	held := make(chan struct{})
	_, s := bound(t, func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Flags&fwp.FlagIsReclassify == 0 {
			return nil
		}
		v.Action, v.Absorb = fwp.ActionBlock, true
		_, err := c.PendOperation()
		close(held)
		return err
	})
	ended := make(chan error, 1)
	go func() {
		_, _, _, err := s.SendTo(context.Background(), origin)
		ended <- err
	}()
	<-held
	s.Close()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, ntstatus.Cancelled)
	case <-time.After(time.Minute):
		t.Fatal("the send waits although its socket is closed")
	}
}
