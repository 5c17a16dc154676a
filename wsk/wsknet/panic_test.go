package wsknet_test

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
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/winsock"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// A brokenStore panics in the method that is named, if any.
type brokenStore struct {
	redirect.Store
	broken string
}

func (b *brokenStore) in(method string) {
	if b.broken == method {
		panic(method)
	}
}

func (b *brokenStore) NewSerial() uint64             { b.in("NewSerial"); return b.Store.NewSerial() }
func (b *brokenStore) Put(h *redirect.Hop) error     { b.in("Put"); return b.Store.Put(h) }
func (b *brokenStore) Replace(h *redirect.Hop) error { b.in("Replace"); return b.Store.Replace(h) }
func (b *brokenStore) Acquire(s uint64) (*redirect.Hop, error) {
	b.in("Acquire")
	return b.Store.Acquire(s)
}
func (b *brokenStore) Retain(s uint64) error  { b.in("Retain"); return b.Store.Retain(s) }
func (b *brokenStore) Release(s uint64) error { b.in("Release"); return b.Store.Release(s) }

// What the code of an embedder panics with goes to who dials or closes, and who recovers from
// it, as net/http does around a handler, goes on: nothing waits for what is not there.
func TestWhoRecoversFromAPanicGoesOn(t *testing.T) {
	for _, method := range []string{"NewSerial", "Put", "Replace", "Acquire", "Retain", "Release", "OnRedirect", "OnDecision"} {
		t.Run(method, func(t *testing.T) {
			ctx := t.Context()
			store := &brokenStore{Store: memstore.New(0)}
			engine := host.New(host.Options{OnDecision: func(*fwps.Incoming, *fwps.Decision) { store.in("OnDecision") }})
			enforcer := ale.New(ale.Options{Classifier: engine, Store: store, OnRedirect: func(ale.RedirectEvent) { store.in("OnRedirect") }})
			c, closeClient, err := wsknet.NewClient(wsk.Options{ALE: enforcer, Process: wsk.Process{ID: 1}, Debug: wsk.Debug{Verifier: &wsk.Verifier{
				Report: func(v wsk.Violation) { t.Error(v) }}}})
			require.NoError(t, err)
			l, err := wsknet.Listen(ctx, c, "127.0.0.1:0")
			require.NoError(t, err)
			unregister := redirectAll(t, engine, netip.MustParseAddrPort(l.Addr().String()), method == "Replace")
			dial := func(d *wsknet.Dialer) *wsknet.Conn {
				conn, err := d.DialContext(ctx, "tcp", "192.0.2.1:7")
				require.NoError(t, err)
				return conn.(*wsknet.Conn)
			}
			d := &wsknet.Dialer{Client: c}
			a := dial(d)
			b, err := l.Accept()
			require.NoError(t, err)
			sealed, err := b.(*wsknet.Conn).RedirectRecords(ctx)
			require.NoError(t, err)
			again := &wsknet.Dialer{Client: c, Control: winsock.Control(sealed)}

			store.broken = method
			if method == "Release" {
				require.PanicsWithValue(t, method, a.Abort)
				a.Abort()
				require.PanicsWithValue(t, method, b.(*wsknet.Conn).Abort)
			} else {
				if method != "Acquire" {
					require.PanicsWithValue(t, method, func() { dial(d) })
				}
				require.PanicsWithValue(t, method, func() { dial(again) })
			}
			store.broken = ""
			for _, conn := range []*wsknet.Conn{dial(d), dial(again), a, b.(*wsknet.Conn)} {
				conn.Abort()
			}
			l.Close()
			l.Abort()
			closed := make(chan struct{})
			go func() { closeClient(); close(closed) }()
			select {
			case <-closed:
			case <-time.After(time.Minute):
				t.Fatal("the close waits")
			}
			require.NoError(t, unregister(), "a flow context is left")
		})
	}
}

// redirectAll redirects connections to an address, with a context for each flow. If it
// promises, their records are asked for before that.
func redirectAll(t *testing.T, engine *host.Engine, to netip.AddrPort, promises bool) (unregister func() error) {
	require.NoError(t, engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "all"}}
		port := []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(7)}}
		p.Filters = []fwpm.Filter{
			{ID: 1, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "all", Conditions: port},
			{ID: 2, Name: "flows", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutUnknown, Callout: "all"},
		}
		return nil
	}))
	_, unregister, err := engine.RegisterCallout("all", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.In.Flow != nil {
			return c.FlowAssociateContext(1, ignores{})
		}
		if promises { // A record that Replace makes whole.
			c.QuerySIOFormatRedirectRecords(nil)
		}
		v.Redirect, v.To, v.TargetPID = true, to, 1
		return nil
	}))
	require.NoError(t, err)
	return unregister
}

type ignores struct{}

func (ignores) FlowDelete(fwpm.LayerID, fwpm.CalloutID, uint64) {}
