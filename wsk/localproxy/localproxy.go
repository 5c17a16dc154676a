// Package localproxy holds the proxies calloutd brings: inspect, which answers
// with what it learned about a connection, forward, which carries it on to where
// it was going, and peek, which looks at whom it asks for before it does. All are
// plain clients of wsk.
package localproxy

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/winsock"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// Options configure a proxy.
type Options struct {
	Client *wsk.Client    // Required.
	Listen netip.AddrPort // Required; port zero lets the system choose.
	// Open tells what sealed records say and takes references that Release
	// gives back. Optional; inspect prints less without it. Only the engine
	// that sealed them can do it: to everybody else they are opaque (RED-SET-07).
	Open    func(sealed []byte) (redirect.Records, error)
	Release func(redirect.Records)
	// Logf reports connections that could not be served. Optional.
	Logf func(format string, args ...any)
}

func (o *Options) logf(format string, args ...any) {
	if o.Logf != nil {
		o.Logf(format, args...)
	}
}

// A Proxy is a proxy that listens.
type Proxy struct {
	ln    *wsknet.Listener
	stop  func()
	drain func(context.Context) error // waits for what wg does not count; optional
	wg    sync.WaitGroup

	acceptors atomic.Int32 // that wait for a connection
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() netip.AddrPort { return p.ln.Addr().(*net.TCPAddr).AddrPort() }

// Close stops listening, ends what is being served and waits for it.
func (p *Proxy) Close() {
	p.ln.Close()
	p.stop()
	p.ln.Abort()
	p.wg.Wait()
}

// Shutdown stops listening and waits for what is being served to end in order. The
// end of ctx ends it.
func (p *Proxy) Shutdown(ctx context.Context) {
	p.ln.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if p.drain != nil {
			_ = p.drain(ctx) // It fails only when ctx ends.
		}
		p.wg.Wait()
		p.ln.Wait()
	}()
	select {
	case <-served:
	case <-ctx.Done():
	}
	p.Close()
	<-served
}

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
	ln, err := wsknet.Listen(ctx, o.Client, o.Listen.String())
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	var stopped atomic.Bool
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateNew && stopped.Load() { // The server's Close did not see it.
				c.(*wsknet.Conn).Abort()
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
	p := &Proxy{ln: ln, stop: func() { stopped.Store(true); srv.Close() }, drain: srv.Shutdown}
	p.wg.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			o.logf("inspect: %v", err)
		}
	})
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

// Forward starts a proxy that carries each connection to its original
// destination, with the redirect records set on its own socket, so that the
// callouts know the connection as their own (RED-SET-04, SC-30).
func Forward(ctx context.Context, o Options) (*Proxy, error) {
	return o.serve(ctx, "forward", func(ctx context.Context, in *wsknet.Conn) error { return o.carry(ctx, in, nil, "") })
}

// serve hands each connection to a function of its own.
func (o *Options) serve(ctx context.Context, kind string, carry func(context.Context, *wsknet.Conn) error) (*Proxy, error) {
	ln, err := wsknet.Listen(ctx, o.Client, o.Listen.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Proxy{ln: ln, stop: cancel}
	p.serve(func(conn *wsknet.Conn) {
		if err := carry(ctx, conn); err != nil {
			o.logf("%s: %v", kind, err)
			conn.Abort() // The client must not take it for an orderly end.
		}
		conn.Close()
	})
	return p, nil
}

// maxAcceptors is how many goroutines may wait for a connection. One that has served
// serves again: its stack has grown, and the connection needs no other.
const maxAcceptors = 64

// serve accepts connections and hands each to a function on a goroutine of its own.
// There is always one that accepts: who takes the last one's place starts the next.
func (p *Proxy) serve(each func(*wsknet.Conn)) {
	p.acceptors.Add(1)
	p.wg.Go(func() {
		for {
			c, err := p.ln.Accept()
			if left := p.acceptors.Add(-1); err != nil {
				return
			} else if left == 0 {
				p.serve(each)
			}
			each(c.(*wsknet.Conn))
			if n := p.acceptors.Load(); n >= maxAcceptors || !p.acceptors.CompareAndSwap(n, n+1) {
				return // Others are at it.
			}
		}
	})
}

// carry connects to the original destination and relays. What was read of in
// goes first; the name, if it is known, is what the destination is called.
func (o *Options) carry(ctx context.Context, in *wsknet.Conn, read []byte, name string) error {
	sealed, err := in.RedirectRecords(ctx)
	if err != nil {
		return fmt.Errorf("connection from %s was not redirected here: %w", in.RemoteAddr(), err)
	}
	b, err := in.RedirectContext(ctx)
	if err != nil {
		return fmt.Errorf("connection from %s has no redirect context: %w", in.RemoteAddr(), err)
	}
	to, err := sockaddr.Parse(b)
	if err != nil {
		return fmt.Errorf("redirect context does not begin with the original destination: %w", err)
	}
	d := wsknet.Dialer{Client: o.Client, Control: named(name, to, winsock.Control(sealed))}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	out := conn.(*wsknet.Conn)
	defer out.Close()
	stop := context.AfterFunc(ctx, func() { abort(in, out) })
	defer stop()
	if len(read) > 0 {
		if _, err := out.Write(read); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	return relay(in, out)
}

// abort resets both ends of a relay. They cannot take turns: an Abort waits until
// nobody uses its connection, and who moves bytes uses both and may be waiting for
// the other one. Both are over when it returns: a Close must not come before.
func abort(a, b *wsknet.Conn) {
	var wg sync.WaitGroup
	wg.Go(a.Abort)
	b.Abort()
	wg.Wait()
}

// relay copies both ways until both ends are done, passing each end's
// half-close on. io.Copy between these connections holds nothing
// while no bytes come.
func relay(a, b *wsknet.Conn) error {
	var ends atomic.Int32
	one := func(dst, src *wsknet.Conn) error {
		_, err := io.Copy(dst, src)
		if err == nil && ends.Add(1) == 1 { // After the last end both are closed, which says it too.
			err = dst.CloseWrite()
		}
		if err != nil { // Each end hears of the other's failure.
			abort(dst, src)
		}
		return err
	}
	var wg sync.WaitGroup
	var err1 error
	wg.Go(func() { err1 = one(a, b) })
	err2 := one(b, a)
	wg.Wait()
	for _, err := range []error{err1, err2} {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	return nil
}
