package host_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An engine that takes another one's place knows the callouts' redirects.
func TestInheritedRedirectHandles(t *testing.T) {
	const had = 1 << 40
	named := redirect.NewSealKey().Handle("c")
	e := host.New(host.Options{RedirectHandles: map[fwpm.CalloutID]redirect.Handle{"a": had, "b": 3, "c": named}})
	other, _ := register(t, e, "other", answering(permit))
	require.Greater(t, other, redirect.Handle(had), "none that was had before")
	require.Less(t, other, redirect.Handle(1<<63), "none by name")
	a, unregister := register(t, e, "a", answering(permit))
	require.EqualValues(t, had, a)
	require.NoError(t, unregister())
	again, _ := register(t, e, "a", answering(permit))
	require.Greater(t, again, other, "RH-01")
}

// Two engines whose records open in both, as with one Sealer: what a callout of one
// redirected is not its own to a callout of the other.
func TestRedirectHandlesOfTwoEngines(t *testing.T) {
	one, two := host.New(host.Options{}), host.New(host.Options{})
	a, _ := register(t, one, "a", answering(permit))
	b, _ := register(t, two, "b", answering(permit))
	require.NotEqual(t, a, b)
	c, err := two.RedirectHandleCreate("contoso", 0)
	require.NoError(t, err)
	require.NotEqual(t, a, c)
	state, _ := redirect.Records{{Handle: a}}.State(b)
	require.Equal(t, redirect.RedirectedByOther, state)
}

// Where handles go by name a callout has its own whenever it registers.
func TestRedirectHandlesByName(t *testing.T) {
	key := redirect.NewSealKey()
	e := host.New(host.Options{RedirectHandle: func(id fwpm.CalloutID) redirect.Handle { return key.Handle(string(id)) }})
	for range 2 {
		h, unregister := register(t, e, "a", answering(permit))
		require.Equal(t, key.Handle("a"), h)
		provider, ok := e.RedirectHandleProvider(h)
		require.True(t, ok)
		require.Equal(t, "a", provider)
		require.NoError(t, unregister())
		_, ok = e.RedirectHandleProvider(h)
		require.False(t, ok)
	}
}

// RH-03: two callouts with one handle would take each other's redirects for their own, and
// one with none would be refused each of its own.
func TestARedirectHandleByNameIsOneCallouts(t *testing.T) {
	var e *host.Engine
	var next redirect.Handle
	e = host.New(host.Options{RedirectHandle: func(fwpm.CalloutID) redirect.Handle {
		_, _ = e.RedirectHandleProvider(next) // It may use the engine.
		return next
	}})
	_, _, err := e.RegisterCallout("a", answering(permit))
	require.ErrorIs(t, err, ntstatus.InvalidParameter)
	require.ErrorContains(t, err, `callout "a"`)
	next = 5
	h, unregister := register(t, e, "a", answering(permit))
	require.EqualValues(t, 5, h)
	_, _, err = e.RegisterCallout("b", answering(permit))
	require.ErrorIs(t, err, ntstatus.InvalidParameter)
	require.ErrorContains(t, err, `callout "b": the redirect handle 5 is that of "a"`)
	require.NoError(t, unregister())
	register(t, e, "b", answering(permit))
}

func TestRedirectHandles(t *testing.T) {
	e := host.New(host.Options{})
	for flags, provider := range map[uint32]string{0: "", 1: "p"} {
		_, err := e.RedirectHandleCreate(provider, flags)
		require.ErrorIs(t, err, ntstatus.InvalidParameter, "RH-04")
	}
	a, err := e.RedirectHandleCreate("p", 0)
	require.NoError(t, err)
	b, err := e.RedirectHandleCreate("p", 0)
	require.NoError(t, err)
	require.NotEqual(t, a, b, "RH-03 two handles of one provider are two redirectors")
	hop := redirect.Records{{Handle: a}}
	e.RedirectHandleDestroy(a)
	e.RedirectHandleDestroy(a)
	c, err := e.RedirectHandleCreate("p", 0)
	require.NoError(t, err)
	for _, h := range []redirect.Handle{b, c} {
		st, _ := hop.State(h)
		require.Equal(t, redirect.RedirectedByOther, st, "AMB-18 no later handle is the one that went")
	}
}

// AMB-18, both sides of the switch.
func TestReauthorizeOnHandleDestroy(t *testing.T) {
	for _, on := range []bool{false, true} {
		e := host.New(host.Options{ReauthorizeOnHandleDestroy: on})
		h, err := e.RedirectHandleCreate("p", 0)
		require.NoError(t, err)
		_, unregister := register(t, e, "c", answering(permit))
		for _, goes := range []func(){func() { e.RedirectHandleDestroy(h) }, func() { require.NoError(t, unregister()) }} {
			for range 3 {
				e.RedirectHandleDestroy(must(e.RedirectHandleCreate("p", 0)))
			}
			before, accept := e.Generation(layer), e.Generation(fwpm.LayerALEAuthRecvAcceptV4)
			goes()
			require.Equal(t, on, e.Generation(layer) != before)
			require.Equal(t, accept, e.Generation(fwpm.LayerALEAuthRecvAcceptV4))
			if on {
				require.Equal(t, fwp.ReasonProxyHandleChanged, e.ReauthorizeReason(layer, before))
				s, now := open(t, e, host.SessionOptions{}), e.Generation(layer)
				add(t, s, filter("f", permit))
				require.Equal(t, fwp.ReasonPolicyChange, e.ReauthorizeReason(layer, now))
				require.Equal(t, fwp.ReasonProxyHandleChanged|fwp.ReasonPolicyChange, e.ReauthorizeReason(layer, before))
			}
		}
	}
}
