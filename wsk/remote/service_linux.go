package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Service answers clients. Close must be called.
type Service struct {
	opts    Options
	sockets *sockets
	diag    *diag
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
	complaints        rate.Sometimes // clients cannot fill a log
}

// New returns a service for Serve. It fails where the kernel cannot tell about
// sockets.
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
	s := &Service{opts: o, sockets: newSockets(o.ALE, o.MaxSockets), diag: d, conns: map[*net.UnixConn]uint32{}, users: map[uint32]*user{}, parting: make(chan struct{}, o.MaxClients),
		complaints: rate.Sometimes{First: 10, Interval: time.Second}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.sweep)
	return s, nil
}

// Serve answers the clients of a SOCK_SEQPACKET listener until Close, and is
// net.ErrClosed then. The service owns the listener from then on.
func (s *Service) Serve(l *net.UnixListener) error {
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
		s.opts.Logf("remote: accept: %v", err)
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
		if err != nil || n == 0 { // Zero is the end: no message is empty.
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

// handle answers one packet; ok is false if it was no request.
func (s *Service) handle(p Peer, packet []byte, fds []int) (m message, ok bool) {
	req, err := parse(packet)
	if err == nil && req.op&answerBit != 0 {
		err = &wireError{6, "this is an answer, not a request"}
	}
	if err != nil {
		s.refused.Add(1)
		s.complain(p, "sent no request: %v", err)
		return answer(req, nil, &StatusError{Status: ntstatus.InvalidParameter, Why: err.Error()}), false
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.Timeout)
	defer cancel()
	data, err := s.do(ctx, p, &req, fds)
	if err != nil && !errors.Is(err, ntstatus.NotFound) {
		s.refused.Add(1)
	}
	return answer(req, data, err), true
}

// answer is what a request is answered with.
func answer(req message, data []byte, err error) message {
	m := message{op: req.op | answerBit, id: req.id, payload: data}
	var st *StatusError
	switch {
	case errors.As(err, &st):
		m.status, m.rule, m.payload = st.Status, st.Rule, []byte(st.Why)
	case err != nil: // No error is a success, whatever it is of.
		m.status, m.payload = ntstatus.Unsuccessful, []byte(err.Error())
	}
	return m
}

// do carries a request out. Its errors are *StatusError.
func (s *Service) do(ctx context.Context, p Peer, req *message, fds []int) ([]byte, error) {
	switch {
	case req.op == opPing:
		return nil, nil
	case req.op > opSetRecords:
		return nil, &StatusError{Status: ntstatus.InvalidDeviceRequest, Why: fmt.Sprintf("%v is not known", req.op)}
	case len(fds) == 0:
		return nil, &StatusError{Status: ntstatus.AccessDenied, Rule: "AMB-06", Why: "the request comes without the socket that it is about"}
	case len(fds) > 1:
		return nil, &StatusError{Status: ntstatus.InvalidParameter, Why: "the request comes with more than one descriptor"}
	case req.op != opSetRecords && len(req.payload) > 0:
		return nil, &StatusError{Status: ntstatus.InvalidParameter, Why: "a query has no payload"}
	}
	if req.op == opSetRecords {
		return nil, s.set(p, fds[0], req.payload)
	}
	a, err := s.sockets.authorized(ctx, p, fds[0])
	if err != nil {
		return nil, err
	}
	if hop := a.flow.Records.Last(); s.opts.StrictQueries && hop != nil && hop.TargetPID != p.PID {
		return nil, &StatusError{Status: ntstatus.AccessDenied, Rule: "AMB-06", Why: fmt.Sprintf("the connection was redirected to process %d, not to %d", hop.TargetPID, p.PID)}
	}
	return a.query(req.op, s.opts.ALE)
}

func (s *Service) set(p Peer, fd int, sealed []byte) error {
	t, err := identify(fd)
	switch {
	case err != nil:
		return err
	case len(sealed) == 0:
		return &StatusError{Status: ntstatus.InvalidParameter, Rule: "SC-40", Why: "there are no records in the request"}
	case !s.opts.MaySetRecords(p):
		return &StatusError{Status: ntstatus.AccessDenied, Rule: "SC-39", Why: fmt.Sprintf("user %d may not set redirect records", p.UID)}
	case t.mptcp:
		return &StatusError{Status: ntstatus.NotSupported, Why: "an MPTCP socket cannot have redirect records: make it a TCP socket"}
	}
	return s.sockets.set(&t, sealed, time.Now())
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

// sweep looks after the sockets while the service lives.
func (s *Service) sweep() {
	t := time.NewTicker(s.opts.Sweep)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := s.sockets.sweep(s.diag, time.Now()); err != nil {
				s.opts.Logf("remote: closed sockets are not looked for: %v", err)
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
		s.opts.Logf("remote: descriptors that clients sent are being closed yet; they are not waited for")
	}
	if !again {
		s.sockets.close()
		s.diag.close()
	}
}

// receive reads a packet with its descriptors. The kernel closes those for which
// there is no room: there is room for two, one more than a request has.
func receive(c *net.UnixConn, b []byte) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return 0, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		if rights, rerr := unix.ParseUnixRights(&messages[i]); rerr == nil {
			fds = append(fds, rights...)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 && len(fds) < 2 { // Our own limit of descriptors, too.
		err = errors.Join(err, errors.New("remote: the descriptors did not fit"))
	}
	return n, fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
