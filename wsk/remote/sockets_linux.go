package remote

import (
	"context"
	"sync"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// outboundLife is how long records wait for the connect of the socket that they
// were set on.
const outboundLife = 2 * time.Minute

// sockets are those that clients have shown, by the kernel's name for them. An
// accepted socket is known until no process has it any more (AMB-19).
type sockets struct {
	ale *ale.Enforcer
	max int

	mu       sync.Mutex
	accepted map[uint64]*accepted
	outbound map[uint64]outbound
	setBy    map[uint32]int // how many of outbound are a user's
	closed   bool
}

// An outbound socket has records set on it.
type outbound struct {
	records redirect.Records // with the references
	user    uint32
	since   time.Time
}

// errEnds is for the request of one whom Close has not waited for.
var errEnds = &StatusError{Status: ntstatus.Cancelled, Why: "the service ends"}

var errFull = &StatusError{Status: ntstatus.InsufficientResources, Why: "too many sockets are known already; Options.MaxSockets bounds them"}

func newSockets(e *ale.Enforcer, most int) *sockets {
	return &sockets{ale: e, max: most, accepted: map[uint64]*accepted{}, outbound: map[uint64]outbound{}, setBy: map[uint32]int{}}
}

// find returns what is known about a socket, which may be nothing yet.
func (s *sockets) find(fd int) (*accepted, error) {
	name, err := cookie(fd)
	if err != nil {
		return nil, err
	}
	if a := s.known(name); a != nil {
		return a, nil
	}
	t, err := identify(fd)
	switch {
	case err != nil:
		return nil, err
	case t.mptcp:
		return nil, &StatusError{Status: ntstatus.NotFound, Rule: "RED-Q-11", Why: "an MPTCP connection is never redirected"}
	case !t.remote.IsValid():
		return nil, &StatusError{Status: ntstatus.NotFound, Rule: "RED-Q-11", Why: "the socket is not connected"}
	}
	return s.add(&t)
}

func (s *sockets) known(name uint64) *accepted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted[name]
}

func (s *sockets) add(t *tcpSocket) (*accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accepted[t.cookie]; a != nil { // Somebody else was faster.
		return a, nil
	}
	switch {
	case s.closed:
		return nil, errEnds
	case len(s.accepted) >= s.max:
		return nil, errFull
	}
	a := &accepted{tcpSocket: *t}
	s.accepted[t.cookie] = a
	return a, nil
}

// authorized finds a socket that the layers let in. It has its flow as long as
// the caller has the descriptor.
func (s *sockets) authorized(ctx context.Context, p Peer, fd int) (*accepted, error) {
	for {
		a, err := s.find(fd)
		if err != nil {
			return nil, err
		}
		f, err := a.authorize(ctx, s.ale, p)
		if err == nil && f == nil { // It was forgotten meanwhile.
			continue
		}
		if err != nil {
			return nil, failure(err)
		}
		return a, nil
	}
}

// set puts records on a socket that will connect; a second set replaces the
// first (SC-41). On one that is connected it has no effect (SC-42, AMB-14). A user has half
// of the room: those that are closed and never connected take it for outboundLife.
func (s *sockets) set(t *tcpSocket, user uint32, sealed []byte, now time.Time) error {
	rs, err := s.ale.Open(sealed)
	if err != nil {
		return &StatusError{Status: ntstatus.AccessDenied, Rule: "AMB-13", Why: err.Error()}
	}
	if t.state != tcpClose {
		s.ale.Release(rs)
		return nil
	}
	s.mu.Lock()
	_, there := s.outbound[t.cookie]
	switch {
	case s.closed:
		err = errEnds
	case !there && (len(s.outbound) >= s.max || s.setBy[user] >= max(1, s.max/2)):
		err = errFull
	default:
		old := s.drop(t.cookie)
		s.outbound[t.cookie] = outbound{rs, user, now}
		s.setBy[user]++
		rs = old
	}
	s.mu.Unlock()
	s.ale.Release(rs)
	return err
}

// take returns the records that were set on a socket. The caller owes a Release.
func (s *sockets) take(cookie uint64) redirect.Records {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drop(cookie)
}

// drop is take for who holds mu.
func (s *sockets) drop(cookie uint64) redirect.Records {
	o, there := s.outbound[cookie]
	if !there {
		return nil
	}
	delete(s.outbound, cookie)
	if s.setBy[o.user]--; s.setBy[o.user] == 0 {
		delete(s.setBy, o.user)
	}
	return o.records
}

// sweep forgets the sockets that no process has any more, and records that were
// set on sockets which did not connect.
func (s *sockets) sweep(d *diag, now time.Time) (err error) {
	s.mu.Lock()
	var old []redirect.Records
	for cookie, o := range s.outbound {
		if now.Sub(o.since) >= outboundLife {
			old = append(old, s.drop(cookie))
		}
	}
	all := make([]*accepted, 0, len(s.accepted))
	for _, a := range s.accepted {
		all = append(all, a)
	}
	s.mu.Unlock()
	for _, records := range old {
		s.ale.Release(records)
	}
	for _, a := range all {
		lives, derr := d.lives(&a.tcpSocket)
		if derr != nil {
			err = derr
			continue
		}
		if !lives {
			s.forget(a)
		}
	}
	return err
}

func (s *sockets) forget(a *accepted) {
	s.mu.Lock()
	delete(s.accepted, a.cookie)
	s.mu.Unlock()
	a.end()
}

func (s *sockets) close() {
	s.mu.Lock()
	all, set := s.accepted, s.outbound
	s.accepted, s.outbound, s.closed = nil, nil, true
	s.mu.Unlock()
	for _, a := range all {
		a.end()
	}
	for _, o := range set {
		s.ale.Release(o.records)
	}
}

func (s *sockets) count() (accepted, outbound int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted), len(s.outbound)
}
