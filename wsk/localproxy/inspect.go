package localproxy

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// A Report is what inspect answers.
type Report struct {
	OriginalDestination string  `json:"original_destination"`
	RedirectState       string  `json:"redirect_state"`
	RecordsBytes        int     `json:"records_bytes"`
	Hops                int     `json:"hops"`
	ContextBytes        int     `json:"context_bytes"`
	Context             string  `json:"context"` // hex
	Client              Process `json:"client"`
	Filter              uint64  `json:"filter"`
	Callout             string  `json:"callout"`
	Error               string  `json:"error,omitempty"`
}

// A Process is who connected.
type Process struct {
	PID     uint32 `json:"pid"`
	Program string `json:"program"`
}

type connKey struct{}

// Inspect starts a proxy that answers every HTTP request with a Report.
func Inspect(ctx context.Context, o Options) (*Proxy, error) {
	ln, err := o.listen(ctx, "inspect")
	if err != nil {
		return nil, err
	}
	var stopped atomic.Bool
	p := &Proxy{ln: ln, log: loglimit.New(o.Logf)}
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew: // Serve goes on yet.
				p.wg.Add(1)
				if stopped.Load() { // The server's Close did not see it.
					c.(*wsknet.Conn).Abort()
				}
			case http.StateClosed: // It is answered: the server's Close does not wait for that.
				p.wg.Done()
			}
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rep := o.report(r.Context(), r.Context().Value(connKey{}).(*wsknet.Conn))
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Connection", "close")
			if rep.Error != "" {
				w.WriteHeader(http.StatusBadGateway)
			}
			// The client may be gone; there is nobody to tell.
			_ = json.NewEncoder(w).Encode(rep)
		}),
	}
	p.stop, p.drain = func() { stopped.Store(true); srv.Close() }, srv.Shutdown
	p.wg.Go(func() { _ = srv.Serve(ln) }) // A listener ends with its Close.
	return p, nil
}

func (o *Options) report(ctx context.Context, c *wsknet.Conn) Report {
	sealed, err := c.RedirectRecords(ctx)
	if err != nil {
		return Report{RedirectState: redirect.NotRedirected.String(), Error: fmt.Sprintf("this connection was not redirected here: %v", err)}
	}
	rep := Report{RecordsBytes: len(sealed)}
	if b, err := c.RedirectContext(ctx); err == nil {
		rep.ContextBytes, rep.Context = len(b), hex.EncodeToString(b)
		if to, err := sockaddr.Parse(b); err == nil {
			rep.OriginalDestination = to.String()
		}
	}
	if o.Open == nil {
		return rep
	}
	rs, err := o.Open(sealed)
	if err != nil {
		rep.Error = err.Error()
		return rep
	}
	defer o.Release(rs)
	h := rs.Last()
	st, _ := rs.State(h.Handle)
	rep.OriginalDestination, rep.RedirectState, rep.Hops = h.Original.String(), st.String(), len(rs)
	rep.Client, rep.Filter, rep.Callout = Process{h.ProcessID, h.AppID}, h.FilterID, h.Callout
	return rep
}
