package wsktest

import (
	"context"
	"testing"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Client is a client of a provider of its own, over an engine without policy.
// Its process is 1000, /bin/proxy.
type Client struct {
	*wsk.Client
	Engine *host.Engine
	ALE    *ale.Enforcer
	Store  *memstore.Store
}

// Open registers a client for a test. At the end of one that passed the client
// deregisters, which waits for ever if something is left, and no redirect record may
// be left.
func Open(t testing.TB, debug wsk.Debug) *Client {
	c, end := Register(debug)
	t.Cleanup(func() {
		if t.Failed() { // What it left open would be waited for.
			return
		}
		end()
		if n := c.Store.Len(); n != 0 {
			t.Errorf("%d redirect records are left", n)
		}
	})
	return c
}

// Register is Open for those who deregister themselves. It panics if the provider
// does not take the client.
func Register(debug wsk.Debug) (c *Client, deregister func()) {
	c = &Client{Engine: host.New(host.Options{}), Store: memstore.New(0)}
	c.ALE = ale.New(ale.Options{Classifier: c.Engine, Store: c.Store})
	p := wsk.NewProvider(wsk.Options{ALE: c.ALE, Process: wsk.Process{ID: 1000, AppID: "/bin/proxy"}, Debug: debug})
	reg, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := p.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, reg); !st.Ok() {
		panic(st)
	}
	if st := reg.CaptureProviderNPI(wsk.NoWait, &npi); !st.Ok() {
		panic(st)
	}
	c.Client = npi.Client
	return c, func() { reg.ReleaseProviderNPI(); reg.Deregister() }
}

// AtConnect makes classify the callout of every IPv4 connect. The verdict is a
// permit that it may change.
func (c *Client) AtConnect(t testing.TB, classify func(call *fwps.Call, v *fwps.Verdict)) {
	t.Helper()
	_, _, err := c.Engine.RegisterCallout("redirect", fwps.CalloutFunc(func(_ context.Context, call *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		classify(call, v)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t, fwpm.Filter{ID: 7, Name: "redirect", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "redirect"})
}

// Add adds a filter, and the callout that it names.
func (c *Client) Add(t testing.TB, f fwpm.Filter) {
	t.Helper()
	err := c.Engine.Update(func(p *fwpm.Policy) error {
		if f.Callout != "" {
			p.Callouts = append(p.Callouts, fwpm.Callout{ID: f.Callout, Name: string(f.Callout)})
		}
		p.Filters = append(p.Filters, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Verifier reports violations as errors of the test.
func Verifier(t testing.TB) *wsk.Verifier {
	return &wsk.Verifier{Report: func(v wsk.Violation) { t.Error(v) }}
}

// Call makes a call with an IRP of its own, waits for it, and frees the IRP.
func Call(do func(*wsk.IRP) ntstatus.Status) (wsk.IoStatus, *wsk.Socket) {
	irp, done := wsk.AllocateIRP(1), make(chan struct{})
	defer irp.Free()
	irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		close(done)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	do(irp)
	<-done
	return irp.IoStatus(), irp.Socket()
}

// Must is Call for what has to succeed.
func Must(t testing.TB, do func(*wsk.IRP) ntstatus.Status) *wsk.Socket {
	t.Helper()
	st, s := Call(do)
	if st.Status != ntstatus.Success {
		t.Fatal(st.Status)
	}
	return s
}
