package ale_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A witness notes what it hears.
type witness struct{ heard []string }

func (w *witness) FlowEstablished(e *fwps.Event) { w.note("flow", e) }
func (w *witness) RedirectDone(e *fwps.Event)    { w.note("redirect", e) }

func (w *witness) note(what string, e *fwps.Event) {
	s := fmt.Sprintf("%s %v to %v, filter %d, context %d", what, e.In.Layer, e.In.Remote, e.Filter, e.Context)
	if e.Hop != nil {
		s += fmt.Sprintf(", record %s", e.Hop.Record)
	}
	w.heard = append(w.heard, s)
}

// FlowDelete implements fwps.FlowDeleter.
func (*witness) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) {}

// observed is a policy whose callout redirects, permits and wants to hear of it.
func observed(w *witness) *policy {
	auth := func(in *fwps.Incoming, d *fwps.Decision) {
		c := &fwps.Call{In: in, Filter: &fwpm.Filter{ID: 3, Callout: "c"}}
		_ = c.FlowAssociateContext(5, w) // The second time there is one.
		c.ObserveFlow(w)
	}
	to := redirectTo(proxy, 7, 1)
	return &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
		fwpm.LayerALEConnectRedirectV4: func(in *fwps.Incoming, d *fwps.Decision) {
			to(in, d)
			d.Connect.Observer = w
		},
		fwpm.LayerALEAuthConnectV4: auth, fwpm.LayerALEAuthRecvAcceptV4: auth,
	}}
}

const (
	sent    = "redirect ALE_CONNECT_REDIRECT_V4 to 198.51.100.7:80, filter 31, context 0, record rec"
	flowing = "flow ALE_FLOW_ESTABLISHED_V4 to 127.0.0.1:8080, filter 3, context 5"
)

func TestACalloutHearsWhatBecameOfItsConnection(t *testing.T) {
	w := new(witness)
	p := observed(w)
	e, _, _ := enforcer(p)
	f, err := e.Connect(t.Context(), app())
	require.NoError(t, err)
	require.Equal(t, []string{sent, flowing}, w.heard)
	p.generation++
	require.NoError(t, f.Reauthorize(t.Context()))
	require.Len(t, w.heard, 2, "it is established once")
	f.Close()

	w.heard = nil
	in, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	require.Equal(t, []string{"flow ALE_FLOW_ESTABLISHED_V4 to 127.0.0.1:40001, filter 3, context 5"}, w.heard)
	in.Close()
}

func TestACalloutHearsOfTheFirstDatagram(t *testing.T) {
	w := new(witness)
	e, _, _ := enforcer(observed(w))
	in := app().in
	in.Protocol = fwps.ProtocolUDP
	s := e.NewSocket(in)
	defer s.Close()
	for range 2 {
		_, _, _, err := s.SendTo(t.Context(), origin)
		require.NoError(t, err)
	}
	require.Equal(t, []string{sent, flowing}, w.heard)
}

func TestACalloutHearsNothingOfAConnectionThatFailed(t *testing.T) {
	w := new(witness)
	e, _, _ := enforcer(observed(w))
	a := app()
	a.connect = func(netip.AddrPort) error { return errors.New("refused") }
	_, err := e.Connect(t.Context(), a)
	require.ErrorContains(t, err, "refused")
	require.Empty(t, w.heard)
}

// What is under way has gone to the proxy and is not established.
func TestACalloutHearsOfAConnectionUnderWay(t *testing.T) {
	w := new(witness)
	e, _, _ := enforcer(observed(w))
	s := e.NewSocket(app().in)
	f, err := s.Connect(t.Context(), origin, func(context.Context, ale.Target) (netip.AddrPort, error) { return client, ale.ErrInProgress })
	require.ErrorIs(t, err, ale.ErrInProgress)
	require.Equal(t, []string{sent}, w.heard)
	f.Close()
	s.Close()
}
