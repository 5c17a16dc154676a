// Command embed is a service that has the engine inside: what its HTTP client
// connects to is decided by filters and a callout in Go, on any system, without
// privileges.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	// The engine decides; the enforcer takes each connection through the layers.
	engine := host.New(host.Options{})
	enforcer := ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})
	defer enforcer.Close()
	client, closeClient, err := wsknet.NewClient(wsk.Options{ALE: enforcer, Process: wsk.Process{ID: uint32(os.Getpid()), AppID: "embed"}})
	if err != nil {
		return err
	}
	defer closeClient()

	// The proxy asks each connection where it was to go.
	proxy, err := wsknet.Listen(ctx, client, "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ConnContext: withOriginal, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the proxy answers for %v", r.Context().Value(originalKey{}))
	})}
	go server.Serve(proxy)
	defer server.Close()

	if err := setPolicy(engine, netip.MustParseAddrPort(proxy.Addr().String())); err != nil {
		return err
	}

	// All that a client needs is the dialer.
	dialer := &wsknet.Dialer{Client: client}
	web := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	for _, url := range []string{"http://198.51.100.7/", "http://192.0.2.1:25/", "http://[2001:db8::1]/"} {
		answer, err := web.Get(url)
		if err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		answer.Body.Close()
		fmt.Fprintln(out, string(body))
	}

	// What a monitor shows.
	v4, v6 := engine.LayerStatistics(fwpm.LayerALEAuthConnectV4), engine.LayerStatistics(fwpm.LayerALEAuthConnectV6)
	fmt.Fprintf(out, "connections: %d let go, %d blocked\n", v4.ClassifyPermitCount+v6.ClassifyPermitCount, v4.ClassifyBlockCount+v6.ClassifyBlockCount)
	return nil
}

// setPolicy makes three filters and a callout live, at once. IPv6 has layers of its own,
// which let go what no filter is about: here nobody is to go that way. Where clients do,
// the same filters stand there, and the proxy listens there.
func setPolicy(engine *host.Engine, proxy netip.AddrPort) error {
	toProxy := fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		v.Action, v.Redirect, v.To, v.TargetPID = fwp.ActionPermit, true, proxy, uint32(os.Getpid())
		return nil
	})
	if err := engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "to proxy", Name: "to proxy"}}
		p.Filters = []fwpm.Filter{
			{ID: 1, Name: "web", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "to proxy",
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(80)}}},
			{ID: 2, Name: "no mail", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionBlock,
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(25)}}},
			{ID: 3, Name: "no IPv6", Layer: fwpm.LayerALEAuthConnectV6, Action: fwp.ActionBlock},
		}
		return nil
	}); err != nil {
		return err
	}
	_, _, err := engine.RegisterCallout("to proxy", toProxy)
	return err
}

type originalKey struct{}

// withOriginal notes with a connection where it was to go.
func withOriginal(ctx context.Context, c net.Conn) context.Context {
	original, err := c.(*wsknet.Conn).OriginalDestination(ctx)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, originalKey{}, original)
}
