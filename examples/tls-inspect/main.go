// Command tls-inspect is a proxy that reads TLS: a callout redirects a client's
// connections to it, and it carries each on with the redirect records, so that
// its own are not redirected again.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
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
	engine := host.New(host.Options{})
	enforcer := ale.New(ale.Options{Classifier: engine, Store: memstore.New(0)})
	defer enforcer.Close()
	client, closeClient, err := wsknet.NewClient(wsk.Options{ALE: enforcer, Process: wsk.Process{ID: uint32(os.Getpid()), AppID: "tls-inspect"}})
	if err != nil {
		return err
	}
	defer closeClient()

	// The origin, which knows nothing of all this.
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "the origin's %s", r.URL.Path) }))
	defer origin.Close()
	origins := x509.NewCertPool()
	origins.AddCert(origin.Certificate())

	l, err := wsknet.Listen(ctx, client, "127.0.0.1:0")
	if err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	p := &proxy{client: client, ca: ca, origins: origins, logf: func(format string, args ...any) { fmt.Fprintf(out, "proxy: "+format+"\n", args...) }}
	served := make(chan error)
	go func() { served <- p.serve(l) }()
	defer func() { l.Close(); l.Abort(); <-served }()

	at := netip.MustParseAddrPort(origin.Listener.Addr().String())
	if err := redirectTo(engine, at.Port(), netip.MustParseAddrPort(l.Addr().String())); err != nil {
		return err
	}
	return visit(ctx, out, &wsknet.Dialer{Client: client}, ca.pool(), at)
}

// visit is a client that trusts the proxy's authority and asks for example.com.
func visit(ctx context.Context, out io.Writer, d *wsknet.Dialer, trusted *x509.CertPool, at netip.AddrPort) error {
	web := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "example.com"}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at.String()+"/secret", nil)
	if err != nil {
		return err
	}
	answer, err := web.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	fmt.Fprintf(out, "client: %s, %s, by %s\n", answer.Status, body, answer.TLS.PeerCertificates[0].Issuer.CommonName)
	return err
}

// redirectTo sends what goes to a port to the proxy, but for what the proxy
// itself carries on. IPv6 has layers of its own: nothing goes by unread there.
func redirectTo(engine *host.Engine, port uint16, proxy netip.AddrPort) error {
	if err := engine.Update(func(p *fwpm.Policy) error {
		p.Callouts = []fwpm.Callout{{ID: "inspect", Name: "inspect"}}
		p.Filters = []fwpm.Filter{
			{ID: 1, Name: "TLS", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutTerminating, Callout: "inspect",
				Conditions: []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Value: fwp.U16(port)}}},
			{ID: 2, Name: "no IPv6", Layer: fwpm.LayerALEAuthConnectV6, Action: fwp.ActionBlock},
		}
		return nil
	}); err != nil {
		return err
	}
	_, _, err := engine.RegisterCallout("inspect", fwps.CalloutFunc(func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		v.Action = fwp.ActionPermit
		if c.State != redirect.RedirectedBySelf && c.State != redirect.PreviouslyRedirectedBySelf {
			v.Redirect, v.To, v.TargetPID = true, proxy, uint32(os.Getpid())
		}
		return nil
	}))
	return err
}
