package dnsnames

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/loglimit"
)

// maxDeciding is how many connections are decided at a time: a decision may wait for a
// callout, and the next one is not to wait for that. More wait with the kernel.
const maxDeciding = 64

// A listener takes what it accepts through the layers. What they refuse is reset.
type listener struct {
	*net.TCPListener
	socket   *ale.Socket
	ctx      context.Context
	log      *loglimit.Log
	deciding chan struct{}
	decided  chan net.Conn // closed when there are no more
	flows    sync.Map      // netip.AddrPort of the client: *ale.Flow
}

// Accept fails when the listener is closed, and for nothing else: the server would try
// again at once, and take a processor for as long as descriptors lack.
func (l *listener) Accept() (net.Conn, error) {
	c, ok := <-l.decided
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// serve accepts and decides until the listener is closed.
func (l *listener) serve() {
	const longest = time.Second
	var wg sync.WaitGroup
	defer func() { wg.Wait(); close(l.decided) }()
	for wait := time.Millisecond; ; {
		l.deciding <- struct{}{}
		c, err := l.AcceptTCP()
		if err == nil {
			wg.Go(func() { l.decide(c); <-l.deciding })
			wait = time.Millisecond
			continue
		}
		<-l.deciding
		if errors.Is(err, net.ErrClosed) {
			return
		}
		l.log.Printf("dns: %v", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, longest)
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *listener) decide(c *net.TCPConn) {
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	flow, err := l.socket.Accept(l.ctx, local, remote)
	if err != nil {
		_ = c.SetLinger(0)
		c.Close()
		return
	}
	l.flows.Store(remote, flow)
	taken := &conn{TCPConn: c, close: func() {
		l.flows.CompareAndDelete(remote, flow) // Whoever resets it may be here again from the same port.
		flow.Close()
	}}
	select {
	case l.decided <- taken:
	case <-l.ctx.Done():
		taken.Close()
	}
}

// A conn ends its flow when it is closed.
type conn struct {
	*net.TCPConn
	once  sync.Once
	close func()
}

func (c *conn) Close() error {
	c.once.Do(c.close)
	return c.TCPConn.Close()
}
