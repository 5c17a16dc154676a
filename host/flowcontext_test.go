package host_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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

	early := new(fwps.Flow)
	e.FlowAbort(early)
	aborted = false
	early.OnAbort(func() { aborted = true })
	require.True(t, aborted, "CO-FLW-03 also if nobody could end it yet")
}

type panicking struct{ fwps.Callout }

func (panicking) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) { panic("flowDeleteFn") }

// CO-FLW-03: a callout that panics keeps no other one from hearing of the end, and is no
// more busy itself.
func TestAFlowDeleteFnThatPanicsIsOnlyItsOwn(t *testing.T) {
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	declare(t, s, "c")
	d := &deleting{Callout: answering(permit)}
	_, unregisterBad := register(t, e, "bad", panicking{answering(permit)})
	_, unregister := register(t, e, "c", d)
	f := new(fwps.Flow)
	require.NoError(t, e.FlowAssociateContext(f, layer, "bad", 1))
	require.NoError(t, e.FlowAssociateContext(f, layer, "c", 2))
	f.End()
	require.Equal(t, []uint64{2}, d.deleted)
	require.NoError(t, unregisterBad())
	require.NoError(t, unregister())
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
