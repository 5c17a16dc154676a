package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/winsock"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// A proxy opens the TLS of connections that a callout redirected to it, tells
// what is asked for, and carries it on to where it was going.
type proxy struct {
	client  *wsk.Client
	ca      *authority
	origins *x509.CertPool // what it trusts itself
	logf    func(format string, args ...any)
}

// An errand is what the redirect of a connection says.
type errand struct {
	original netip.AddrPort
	records  []byte
}

type errandKey struct{}

// serve answers connections until the listener is closed.
func (p *proxy) serve(l *wsknet.Listener) error {
	s := &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite:      p.rewrite,
			Transport:    p.transport(),
			ErrorHandler: p.failed,
		},
		TLSConfig:   &tls.Config{GetCertificate: p.ca.certificate},
		ConnContext: withErrand,
	}
	return s.ServeTLS(l, "", "")
}

// withErrand asks Winsock Kernel whom a connection was for. Of one that was not
// redirected it knows nothing, and its requests fail.
func withErrand(ctx context.Context, c net.Conn) context.Context {
	conn := c.(*tls.Conn).NetConn().(*wsknet.Conn)
	original, err := conn.OriginalDestination(ctx)
	if err != nil {
		return ctx
	}
	records, err := conn.RedirectRecords(ctx)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, errandKey{}, errand{original, records})
}

func (p *proxy) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "https", r.In.TLS.ServerName
	p.logf("%s https://%s%s", r.In.Method, r.In.TLS.ServerName, r.In.URL.Path)
}

// transport connects to where the connection was going, with its records: the
// callout knows it by them and lets it pass.
func (p *proxy) transport() *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true, // One connection's records are not another's.
		TLSClientConfig:   &tls.Config{RootCAs: p.origins},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			e, ok := ctx.Value(errandKey{}).(errand)
			if !ok {
				return nil, fmt.Errorf("the connection was not redirected here")
			}
			d := &wsknet.Dialer{Client: p.client, Control: winsock.Control(e.records)}
			return d.DialContext(ctx, network, e.original.String())
		},
	}
}

func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	p.logf("%s: %v", r.Host, err)
	http.Error(w, err.Error(), http.StatusBadGateway)
}
