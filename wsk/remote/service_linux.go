package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/loglimit"
	"github.com/calloutd/calloutd/host/redirect"
)

// A Service answers clients. Close must be called.
type Service struct {
	opts    Options
	sockets *sockets
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []*net.UnixListener
	conns     map[*net.UnixConn]uint32 // and whose they are
	users     map[uint32]*user
	parting   chan struct{} // those that are being turned away

	requests, refused atomic.Uint64
	log               *loglimit.Log
}

// New returns a service for Serve. It fails where the kernel cannot tell about
// sockets, and panics when a required option is missing.
func New(o Options) (*Service, error) {
	o.defaults()
	if o.Allow == nil {
		o.Allow = ownOrRoot
	}
	if ownNetns() == 0 {
		return nil, errors.New("remote: the kernel does not name network namespaces (SO_NETNS_COOKIE, Linux 5.14)")
	}
	if err := enforce.CheckProc(); err != nil { // Another's path would decide at AUTH_RECV_ACCEPT.
		return nil, fmt.Errorf("remote: which program asks cannot be told: %w", err)
	}
	d, err := openDiag()
	if err != nil {
		return nil, err
	}
	s := &Service{opts: o, sockets: newSockets(o.ALE, o.MaxSockets), conns: map[*net.UnixConn]uint32{}, users: map[uint32]*user{}, parting: make(chan struct{}, o.MaxClients),
		log: loglimit.New(o.Logf)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(func() { s.sweep(d) })
	return s, nil
}

// Serve answers the clients of a SOCK_SEQPACKET listener until Close, and is
// net.ErrClosed then. The service owns the listener from then on.
func (s *Service) Serve(l *net.UnixListener) error {
	if l == nil {
		return fmt.Errorf("remote: no listener was given: %w", fs.ErrInvalid)
	}
	if network := l.Addr().Network(); network != "unixpacket" {
		return errors.Join(fmt.Errorf("remote: the listener is %s, a service needs unixpacket (SOCK_SEQPACKET)", network), l.Close())
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(net.ErrClosed, l.Close())
	}
	s.listeners = append(s.listeners, l)
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	const longest = time.Second
	for wait := time.Millisecond; ; {
		c, err := l.AcceptUnix()
		switch {
		case err == nil:
			wait = time.Millisecond
			s.admit(c)
			continue
		case errors.Is(err, net.ErrClosed):
			return net.ErrClosed
		}
		// Such as a lack of descriptors, which passes.
		s.log.Printf("remote: accept: %v", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, longest)
		case <-s.ctx.Done():
			return net.ErrClosed
		}
	}
}

// serve answers one client, one request after the other.
func (s *Service) serve(c *net.UnixConn, p Peer, u *user) {
	defer s.leave(c)
	in, out := make([]byte, maxMessage+1), make([]byte, 0, maxMessage)
	for {
		if u.pace.Wait(s.ctx) != nil {
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(s.opts.Idle)) // It fails only for a closed one, as the read does then.
		n, fds, err := receive(c, in)
		if err != nil {
			closeAll(fds)
			return
		}
		s.requests.Add(1)
		m, ok := s.handle(p, in[:n], fds)
		closeAll(fds)
		_ = c.SetWriteDeadline(time.Now().Add(s.opts.Timeout))
		if _, err := c.Write(m.appendTo(out)); err != nil || !ok {
			return
		}
	}
}

// TakeRecords returns the records that a client set on the socket with a cookie
// (SO_COOKIE), for the backend that sees it connect. The caller owes a Release.
func (s *Service) TakeRecords(cookie uint64) redirect.Records { return s.sockets.take(cookie) }

// Stats reads the figures.
func (s *Service) Stats() Stats {
	st := Stats{Requests: s.requests.Load(), Refused: s.refused.Load()}
	st.Sockets, st.Outbound = s.sockets.count()
	s.mu.Lock()
	st.Clients = len(s.conns)
	s.mu.Unlock()
	return st
}

// sweep looks after the sockets and the users while the service lives. The descriptor that
// it asks about sockets with is its own.
func (s *Service) sweep(d *diag) {
	defer d.close()
	t := time.NewTicker(s.opts.Sweep)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			s.forgetUsers(now)
			if err := s.sockets.sweep(d, now); err != nil {
				s.log.Printf("remote: closed sockets are not looked for: %v", err)
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// Close ends the service: listeners, clients and what is known about sockets. It does
// not wait for longer than Options.Timeout for descriptors that clients sent, whose close
// may last as long as they like.
func (s *Service) Close() {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.cancel()
	for c := range s.conns {
		_, _ = c.CloseRead(), c.CloseWrite() // Who serves it closes it.
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, l := range s.listeners { // There are no new ones.
			l.Close()
		}
		s.wg.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(s.opts.Timeout):
		s.log.Printf("remote: descriptors that clients sent are being closed yet; they are not waited for")
	}
	if !again {
		s.sockets.close()
		s.log.Close()
	}
}
