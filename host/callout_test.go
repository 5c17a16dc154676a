package host_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A noted callout writes down what it hears.
type noted struct {
	heard   []string
	refuse  error
	panics  bool
	context uint64 // left in filters
	seen    uint64 // found in the filter that asked
	during  func() // while it hears
}

func (n *noted) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	n.seen = c.Filter.Context
	v.Action = permit
	return nil
}

func (n *noted) Notify(t fwps.NotifyType, f *fwpm.Filter) error {
	n.heard = append(n.heard, fmt.Sprintf("%s %d context=%d", [...]string{"add", "delete", "post-commit"}[t], f.ID, f.Context))
	if n.during != nil {
		n.during()
	}
	if n.panics {
		panic("boom")
	}
	if t == fwps.NotifyAddFilter && n.context != 0 {
		f.Context = n.context
		f.Action, f.Name = block, "not to be changed"
	}
	return n.refuse
}

func (n *noted) take() []string { h := n.heard; n.heard = nil; return h }

type committed struct{ noted }

func (*committed) EnableCommitAddNotify() {}

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
		for id, c := range map[fwpm.CalloutID]fwps.Callout{"": answering(permit), "nil": nil} {
			_, _, err := e.RegisterCallout(id, c)
			require.ErrorIs(t, err, ntstatus.InvalidParameter)
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

func TestNotifications(t *testing.T) {
	setup := func(t *testing.T, c fwps.Callout) (*host.Engine, *host.Session) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c", "other")
		register(t, e, "c", c)
		return e, s
	}
	t.Run("CO-NOT-01 a callout hears of filters that call it", func(t *testing.T) {
		n := new(noted)
		_, s := setup(t, n)
		id := add(t, s, calling("c"))
		add(t, s, calling("other"))
		add(t, s, filter("calls nobody", block))
		require.Equal(t, []string{"add 1 context=0"}, n.take())
		require.NoError(t, s.FilterDelete(id))
		require.Equal(t, []string{"delete 1 context=0"}, n.take())
	})
	t.Run("CO-NOT-01 and of the commit if it wants to", func(t *testing.T) {
		c := new(committed)
		_, s := setup(t, c)
		require.NoError(t, s.Begin(0))
		add(t, s, calling("c"))
		require.Equal(t, []string{"add 1 context=0"}, c.take())
		require.NoError(t, s.Commit())
		require.Equal(t, []string{"post-commit 1 context=0"}, c.take())
	})
	t.Run("CO-NOT-02 what it leaves in a filter comes back", func(t *testing.T) {
		n := &noted{context: 77}
		e, s := setup(t, n)
		id := add(t, s, calling("c"))
		decide(t, e)
		require.EqualValues(t, 77, n.seen)
		require.Equal(t, permit, decide(t, e).Action)
		require.Equal(t, "calls c", decide(t, e).Decider().Name, "nothing else can be changed")
		require.EqualValues(t, 77, filters(t, s, nil)[0].Context)
		n.take()
		require.NoError(t, s.FilterDelete(id))
		require.Equal(t, []string{"delete 1 context=77"}, n.take())
	})
	t.Run("SC-111 CO-NOT-02 it may refuse a filter", func(t *testing.T) {
		no := errors.New("no room")
		n := &noted{refuse: no}
		e, s := setup(t, n)
		_, err := s.FilterAdd(calling("c"))
		require.ErrorIs(t, err, fwp.ErrCalloutNotificationFailed)
		require.ErrorIs(t, err, no)
		require.EqualError(t, err, "filter 1: callout: the callout refused the filter: no room")
		require.Empty(t, names(e))
		require.Equal(t, []string{"add 1 context=0"}, n.take(), "it does not hear that it is gone")
	})
	t.Run("CO-NOT-02 a panic is a refusal", func(t *testing.T) {
		e, s := setup(t, &noted{panics: true})
		_, err := s.FilterAdd(calling("c"))
		require.ErrorIs(t, err, fwp.ErrCalloutNotificationFailed)
		require.Empty(t, names(e))
	})
	t.Run("CO-NOT-02 one refusal is the end of an Update", func(t *testing.T) {
		n, willing := &noted{refuse: errors.New("no")}, new(noted)
		e, _ := setup(t, n)
		register(t, e, "other", willing)
		err := e.Update(func(p *fwpm.Policy) error {
			a, b := calling("c"), calling("other")
			a.ID, b.ID = 1, 2
			p.Filters = []fwpm.Filter{a, b}
			return nil
		})
		require.ErrorIs(t, err, fwp.ErrCalloutNotificationFailed)
		require.Empty(t, names(e))
		require.Equal(t, []string{"add 2 context=0", "delete 2 context=0"}, willing.take())
	})
	t.Run("a filter that Update leaves alone is not told of, a changed one is a new one", func(t *testing.T) {
		n := &noted{context: 5}
		e, s := setup(t, n)
		add(t, s, calling("c"))
		n.take()
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: "s"}); return nil }))
		require.Empty(t, n.take())
		decide(t, e)
		require.EqualValues(t, 5, n.seen)
		n.context = 6
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Filters[0].Sublayer = "s"; return nil }))
		require.Equal(t, []string{"add 1 context=0", "delete 1 context=5"}, n.take())
		decide(t, e)
		require.EqualValues(t, 6, n.seen)
	})
	t.Run("a filter whose transaction is aborted is deleted", func(t *testing.T) {
		n := &noted{context: 7}
		_, s := setup(t, n)
		require.NoError(t, s.Begin(0))
		id := add(t, s, calling("c"))
		require.NoError(t, s.FilterDelete(id))
		add(t, s, calling("c"))
		require.NoError(t, s.Abort())
		require.Equal(t, []string{"add 1 context=0", "add 2 context=0", "delete 1 context=7", "delete 2 context=7"}, n.take())
	})
	t.Run("one that is added and deleted in a transaction too", func(t *testing.T) {
		n := new(committed)
		_, s := setup(t, n)
		require.NoError(t, s.Begin(0))
		id := add(t, s, calling("c"))
		require.NoError(t, s.FilterDelete(id))
		require.NoError(t, s.Commit())
		require.Equal(t, []string{"add 1 context=0", "delete 1 context=0"}, n.take())
	})
	t.Run("CO-NOT-03 CO-NOT-04 a filter that was there before is told of only when it goes", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c")
		first := &noted{context: 9}
		_, unregister := register(t, e, "c", first)
		id := add(t, s, calling("c"))
		require.NoError(t, unregister())
		second := new(committed)
		register(t, e, "c", second)
		decide(t, e)
		require.Zero(t, second.seen, "what the other registration left is not shown")
		require.Empty(t, second.take())
		require.NoError(t, s.FilterDelete(id))
		require.Equal(t, []string{"delete 1 context=0"}, second.take())
		require.Equal(t, []string{"add 1 context=0"}, first.take())
	})
	t.Run("CO-NOT-04 one that registers in between hears of no commit", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c")
		require.NoError(t, s.Begin(0))
		add(t, s, calling("c"))
		c := new(committed)
		register(t, e, "c", c)
		require.NoError(t, s.Commit())
		require.Empty(t, c.take())
	})
	t.Run("results of the others do not count", func(t *testing.T) {
		n := new(committed)
		e, s := setup(t, n)
		require.NoError(t, s.Begin(0))
		id := add(t, s, calling("c"))
		n.refuse, n.panics = errors.New("too late"), true
		require.NoError(t, s.Commit())
		require.NoError(t, s.FilterDelete(id))
		require.Empty(t, names(e))
	})
	t.Run("after a commit the callout may use the engine", func(t *testing.T) {
		n := new(committed)
		e, s := setup(t, n)
		n.during = func() {
			if len(n.heard) == 2 { // post-commit
				_, err := s.SublayerAdd(fwpm.Sublayer{ID: "from a callout", Name: "n"})
				require.NoError(t, err)
			}
		}
		add(t, s, calling("c"))
		require.Len(t, e.Policy().Sublayers, 1)
	})
}

type deleting struct {
	fwps.Callout
	deleted []uint64
}

func (d *deleting) FlowDelete(_ fwpm.LayerID, _ fwpm.CalloutID, context uint64) {
	d.deleted = append(d.deleted, context)
}

func TestFlowContexts(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	declare(t, s, "c")
	d := &deleting{Callout: answering(permit)}
	_, unregister := register(t, e, "c", d)
	register(t, e, "plain", answering(permit))
	f := new(fwps.Flow)

	for name, err := range map[string]error{
		"CO-FLW-01 context 0":                    e.FlowAssociateContext(f, layer, "c", 0),
		"CO-FLW-01 no flowDeleteFn":              e.FlowAssociateContext(f, layer, "plain", 1),
		"CO-FLW-04 no flow":                      e.FlowAssociateContext(nil, layer, "c", 1),
		"no such layer":                          e.FlowAssociateContext(f, 3, "c", 1),
		"CO-FLW-02 no flow to take it away from": func() error { _, err := e.FlowRemoveContext(nil, layer, "c"); return err }(),
	} {
		require.ErrorIs(t, err, ntstatus.InvalidParameter, name)
	}
	require.ErrorIs(t, e.FlowAssociateContext(f, layer, "nobody", 1), ntstatus.FWPCalloutNotFound)
	require.NoError(t, unregister(), "what failed does not count")
	_, unregister = register(t, e, "c", d)

	require.NoError(t, e.FlowAssociateContext(f, layer, "c", 11))
	require.ErrorIs(t, e.FlowAssociateContext(f, layer, "c", 12), ntstatus.ObjectNameExists, "SC-113")
	require.NoError(t, e.FlowAssociateContext(f, fwpm.LayerALEFlowEstablishedV4, "c", 13), "CO-FLW-01 one for each layer")
	require.ErrorIs(t, unregister(), ntstatus.DeviceBusy, "SC-112 CO-REG-05")

	pending, err := e.FlowRemoveContext(f, layer, "c")
	require.NoError(t, err)
	require.False(t, pending)
	require.Equal(t, []uint64{11}, d.deleted, "CO-FLW-02 it has been deleted already")
	_, err = e.FlowRemoveContext(f, layer, "c")
	require.ErrorIs(t, err, ntstatus.Unsuccessful)
	require.ErrorIs(t, unregister(), ntstatus.DeviceBusy)

	aborted := false
	f.OnAbort(func() { aborted = true; f.End() })
	e.FlowAbort(f)
	e.FlowAbort(nil)
	require.True(t, aborted)
	require.Equal(t, []uint64{11, 13}, d.deleted, "CO-FLW-03")
	require.NoError(t, unregister(), "SC-112")
}

// A context that is taken away while its callout is asked goes afterwards.
func TestFlowContextDuringClassification(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	declare(t, s, "c")
	f := new(fwps.Flow)
	d := new(deleting)
	d.Callout = fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = permit
		if c.FlowContext == 0 {
			return c.FlowAssociateContext(21, d)
		}
		require.EqualValues(t, 21, c.FlowContext, "CO-CLS-04")
		pending, err := e.FlowRemoveContext(c.In.Flow, c.In.Layer, "c")
		require.True(t, pending, "STATUS_PENDING")
		require.Empty(t, d.deleted)
		return err
	})
	_, unregister := register(t, e, "c", d)
	add(t, s, calling("c"))
	in, dec := incoming(layer), new(fwps.Decision)
	e.Classify(t.Context(), &in, dec)
	require.Contains(t, dec.Decider().Why, "has no flow", "CO-FLW-04")
	in.Flow = f
	for _, busy := range []error{ntstatus.DeviceBusy, nil} {
		e.Classify(t.Context(), &in, dec)
		require.Equal(t, permit, dec.Action, "%+v", dec.Steps)
		require.ErrorIs(t, unregister(), busy, "SC-112")
	}
	require.Equal(t, []uint64{21}, d.deleted)
}

// A context is never seen by a classification that begins after it was deleted.
func TestFlowContextIsNotSeenOnceItIsDeleted(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	declare(t, s, "c")
	var live [20_001]atomic.Bool
	d := &tracking{live: live[:]}
	register(t, e, "c", d)
	add(t, s, calling("c"))
	in, dec := incoming(layer), new(fwps.Decision)
	in.Flow = new(fwps.Flow)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range uint64(len(live) - 1) {
			live[n+1].Store(true)
			if err := e.FlowAssociateContext(in.Flow, layer, "c", n+1); err != nil {
				t.Error(err)
			}
			if _, err := e.FlowRemoveContext(in.Flow, layer, "c"); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		e.Classify(t.Context(), &in, dec)
		require.Equal(t, permit, dec.Action, "%+v", dec.Steps)
		select {
		case <-done:
			return
		default:
		}
	}
}

// A tracking callout fails if it sees a context that was deleted.
type tracking struct{ live []atomic.Bool }

func (d *tracking) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	v.Action = permit
	if n := c.FlowContext; n != 0 && !d.live[n].Load() {
		return fmt.Errorf("context %d was deleted", n)
	}
	return nil
}

func (d *tracking) FlowDelete(_ fwpm.LayerID, _ fwpm.CalloutID, n uint64) { d.live[n].Store(false) }

// An engine that takes another one's place knows the callouts' redirects.
func TestInheritedRedirectHandles(t *testing.T) {
	e := host.New(host.Options{RedirectHandles: map[fwpm.CalloutID]redirect.Handle{"a": 7, "b": 3}})
	other, _ := register(t, e, "other", answering(permit))
	require.EqualValues(t, 8, other, "none that was had before")
	a, unregister := register(t, e, "a", answering(permit))
	require.EqualValues(t, 7, a)
	require.NoError(t, unregister())
	again, _ := register(t, e, "a", answering(permit))
	require.EqualValues(t, 9, again, "RH-01")
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
