// Package localproxy holds the proxies calloutd brings: inspect, which answers
// with what it learned about a connection, forward, which carries it on to where
// it was going, and peek, which looks at whom it asks for before it does. All are
// plain clients of wsk.
package localproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/wsknet"
)

// Options configure a proxy.
type Options struct {
	Client *wsk.Client    // Required.
	Listen netip.AddrPort // Required; port zero lets the system choose.
	// Open tells what sealed records say and takes references that Release
	// gives back. Optional, both or none; inspect prints less without them. Only the engine
	// that sealed them can do it: to everybody else they are opaque (RED-SET-07).
	Open    func(sealed []byte) (redirect.Records, error)
	Release func(redirect.Records)
	// Logf reports connections that could not be served. Optional.
	Logf func(format string, args ...any)
}

// listen begins to listen for a proxy of a kind.
func (o *Options) listen(ctx context.Context, kind string) (*wsknet.Listener, error) {
	if o.Open != nil && o.Release == nil {
		return nil, fmt.Errorf("%s: Options.Open takes references, so Options.Release is required too", kind)
	}
	ln, err := wsknet.Listen(ctx, o.Client, o.Listen.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return ln, nil
}

// A Proxy is a proxy that listens.
type Proxy struct {
	ln    *wsknet.Listener
	stop  func()
	log   *loglimit.Log
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
	p.log.Close()
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

// serve hands each connection to a function of its own.
func (o *Options) serve(ctx context.Context, kind string, carry func(context.Context, *wsknet.Conn) error) (*Proxy, error) {
	ln, err := o.listen(ctx, kind)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Proxy{ln: ln, stop: cancel, log: loglimit.New(o.Logf)}
	p.serve(func(conn *wsknet.Conn) {
		if err := carry(ctx, conn); err != nil {
			p.log.Printf("%s: %v", kind, err)
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
