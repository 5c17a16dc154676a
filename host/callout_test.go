package host_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

func register(t *testing.T, e *host.Engine, id fwpm.CalloutID, c fwps.Callout) (redirect.Handle, func() error) {
	t.Helper()
	h, unregister, err := e.RegisterCallout(id, c)
	require.NoError(t, err)
	return h, unregister
}

func TestRegistration(t *testing.T) {
	t.Run("CO-REG-03 two registrations cannot have one name", func(t *testing.T) {
		e := host.New(host.Options{})
		_, unregister := register(t, e, "c", answering(permit))
		_, _, err := e.RegisterCallout("c", answering(block))
		require.ErrorIs(t, err, ntstatus.FWPAlreadyExists)
		require.NoError(t, unregister())
		require.ErrorIs(t, unregister(), ntstatus.FWPCalloutNotFound)
		_, again := register(t, e, "c", answering(block))
		require.ErrorIs(t, unregister(), ntstatus.FWPCalloutNotFound, "not the newer one")
		require.NoError(t, again())
	})
	t.Run("CO-REG-01 a callout has a name and code", func(t *testing.T) {
		e := host.New(host.Options{})
		for id, c := range map[fwpm.CalloutID]fwps.Callout{"": answering(permit), "nil": nil, "nil function": fwps.CalloutFunc(nil)} {
			_, _, err := e.RegisterCallout(id, c)
			require.ErrorIs(t, err, ntstatus.InvalidParameter, id)
		}
	})
	t.Run("CO-REG-03 CO-REG-04 CO-REG-05 filters may be there before and after", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c")
		add(t, s, calling("c"))
		require.Equal(t, block, decide(t, e).Action)
		_, unregister := register(t, e, "c", answering(permit))
		require.Equal(t, permit, decide(t, e).Action)
		require.NoError(t, unregister())
		require.Equal(t, "CO-REG-04", decide(t, e).Decider().Rule)
		register(t, e, "c", answering(permit))
		require.Equal(t, permit, decide(t, e).Action)
	})
	t.Run("a classification that is under way does not reach a later registration", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "gate", "c")
		inside, goOn := make(chan bool), make(chan bool)
		register(t, e, "gate", fwps.CalloutFunc(func(context.Context, *fwps.Call, *fwps.Verdict) error {
			inside <- true
			<-goOn
			return nil
		}))
		first := &noted{context: 5}
		_, unregister := register(t, e, "c", first)
		add(t, s, calling("gate"))
		add(t, s, calling("c"))
		done := make(chan *fwps.Decision)
		go func() { done <- decide(t, e) }()
		<-inside
		require.NoError(t, unregister())
		second := new(noted)
		register(t, e, "c", second)
		goOn <- true
		d := <-done
		require.Equal(t, block, d.Action)
		require.Equal(t, "CO-REG-04", d.Decider().Rule)
		require.Zero(t, second.seen)
	})
	t.Run("RH-01 RH-03 each registration has a handle of its own", func(t *testing.T) {
		e := host.New(host.Options{})
		a, unregister := register(t, e, "a", answering(permit))
		b, _ := register(t, e, "b", answering(permit))
		require.NoError(t, unregister())
		c, _ := register(t, e, "a", answering(permit))
		require.Len(t, map[redirect.Handle]bool{0: true, a: true, b: true, c: true}, 4)
		p, ok := e.RedirectHandleProvider(b)
		require.True(t, ok)
		require.Equal(t, "b", p)
		_, ok = e.RedirectHandleProvider(a)
		require.False(t, ok, "it went with its registration")
	})
	t.Run("AMB-44 a callout that holds a classification stays", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c")
		held := make(chan *fwps.PendedOperation)
		_, unregister := register(t, e, "c", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
			if c.In.Flags&fwp.FlagIsReauthorize != 0 {
				v.Action = permit
				return nil
			}
			p, err := c.PendOperation()
			if err == nil {
				v.Action, v.Absorb = block, true
				go func() { held <- p }()
			}
			return err
		}))
		add(t, s, calling("c"))
		done := make(chan *fwps.Decision)
		go func() { done <- decide(t, e) }()
		p := <-held
		require.ErrorIs(t, unregister(), ntstatus.DeviceBusy)
		p.Complete()
		require.Equal(t, permit, (<-done).Action)
		require.NoError(t, unregister())
	})
}
