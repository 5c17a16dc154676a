package dnsnames

import (
	"context"
	"net"
	"sync"

	"github.com/calloutd/calloutd/host/ale"
)

// A listener takes what it accepts through the layers. What they refuse is reset.
type listener struct {
	*net.TCPListener
	socket *ale.Socket
	ctx    context.Context
	flows  sync.Map // netip.AddrPort of the client: *ale.Flow
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return nil, err
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
