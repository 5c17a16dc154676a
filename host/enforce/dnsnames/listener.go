package dnsnames

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/ale"
)

// A listener takes what it accepts through the layers. What they refuse is reset.
type listener struct {
	*net.TCPListener
	socket *ale.Socket
	ctx    context.Context
	logf   func(format string, args ...any)
	flows  sync.Map // netip.AddrPort of the client: *ale.Flow
}

// Accept fails when the listener is closed, and for nothing else: the server would try
// again at once, and take a processor for as long as descriptors lack.
func (l *listener) Accept() (net.Conn, error) {
	const longest = time.Second
	for wait := time.Millisecond; ; {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			l.logf("dns: %v", err)
			select {
			case <-time.After(wait):
				wait = min(2*wait, longest)
			case <-l.ctx.Done():
				return nil, net.ErrClosed
			}
			continue
		}
		local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
		flow, err := l.socket.Accept(l.ctx, local, remote)
		if err != nil {
			_ = c.SetLinger(0)
			c.Close()
			continue
		}
		l.flows.Store(remote, flow)
		return &conn{TCPConn: c, close: func() {
			l.flows.Delete(remote)
			flow.Close()
		}}, nil
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
