package wsknet_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"

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

// A proxy asks each connection whom it was for, and carries it on with its redirect
// records: so the callout knows the proxy's own connection and lets it pass.
func Example() {
	ctx := context.Background()
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer origin.Close()
	go answer(origin)

	engine := host.New(host.Options{})
	client, closeClient, err := wsknet.NewClient(wsk.Options{ALE: ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)}), Process: wsk.Process{ID: 1}})
	if err != nil {
		log.Fatal(err)
	}
	defer closeClient()
	proxy, err := wsknet.Listen(ctx, client, "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer proxy.Close()
	if err := redirectTo(engine, netip.MustParseAddrPort(origin.Addr().String()), netip.MustParseAddrPort(proxy.Addr().String())); err != nil {
		log.Fatal(err)
	}
	go func() {
		accepted, err := proxy.Accept()
		if err != nil {
			log.Fatal(err)
		}
		carryOn(ctx, client, accepted.(*wsknet.Conn), origin.Addr())
	}()

	conn, err := (&wsknet.Dialer{Client: client}).DialContext(ctx, "tcp", origin.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	fmt.Println(string(text), err)
	// Output:
	// the callout sees: not-redirected
	// the proxy is told whom it was for: true; context "hello, proxy"
	// the callout sees: redirected-by-self
	// the origin <nil>
}

// redirectTo sends what is for the origin to the proxy, but not the proxy's own.
func redirectTo(engine *host.Engine, origin, proxy netip.AddrPort) error {
	if err := engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "to proxy", Name: "to proxy"}}
		p.Filters = []fwpm.Filter{{ID: 1, Name: "the origin's", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "to proxy",
			Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(origin.Port())}}}}
		return nil
	}); err != nil {
		return err
	}
	_, _, err := engine.RegisterCallout("to proxy", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		fmt.Println("the callout sees:", c.State)
		v.Action = fwp.ActionPermit
		if c.State == redirect.NotRedirected {
			v.Redirect, v.To, v.TargetPID = true, proxy, 1
			v.Context = append(v.Context, "hello, proxy"...)
		}
		return nil
	}))
	return err
}

// carryOn is what a proxy does with a connection that it accepted.
func carryOn(ctx context.Context, client *wsk.Client, in *wsknet.Conn, origin net.Addr) {
	defer in.Close()
	original, err := in.OriginalDestination(ctx)
	if err != nil {
		log.Fatal(err)
	}
	told, err := in.RedirectContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the proxy is told whom it was for: %v; context %q\n", original.String() == origin.String(), told)
	records, err := in.RedirectRecords(ctx)
	if err != nil {
		log.Fatal(err)
	}
	out, err := (&wsknet.Dialer{Client: client, Control: winsock.Control(records)}).DialContext(ctx, "tcp", original.String())
	if err != nil {
		log.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(in, out); err != nil {
		log.Fatal(err)
	}
}

func answer(origin net.Listener) {
	conn, err := origin.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "the origin")
}
