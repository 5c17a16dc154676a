package remote

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/time/rate"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A user of the system, with all of its processes.
type user struct {
	clients int
	pace    *rate.Limiter
}

// admit begins to serve a client, if it may be one and there is room.
func (s *Service) admit(c *net.UnixConn) {
	p, err := peerOf(c)
	if err != nil {
		s.aside(c, p, &StatusError{Status: ntstatus.AccessDenied, Why: err.Error()})
		return
	}
	if !s.opts.Allow(p) {
		s.aside(c, p, &StatusError{Status: ntstatus.AccessDenied, Why: fmt.Sprintf("user %d may not be a client of this service", p.UID)})
		return
	}
	s.mu.Lock()
	u := s.users[p.UID]
	if u == nil {
		u = &user{pace: rate.NewLimiter(rate.Limit(s.opts.Rate), max(1, s.opts.Rate/10))}
		s.users[p.UID] = u // until forgetUsers
	}
	room := !s.closed && len(s.conns) < s.opts.MaxClients && u.clients < max(1, s.opts.MaxClients/2)
	if room {
		u.clients++
		s.conns[c] = p.UID
		s.wg.Go(func() { s.serve(c, p, u) })
	}
	s.mu.Unlock()
	if !room {
		s.aside(c, p, &StatusError{Status: ntstatus.InsufficientResources, Why: "too many clients are connected"})
	}
}

// aside turns a client away while others are served: that may last for some of its patience.
func (s *Service) aside(c *net.UnixConn, p Peer, why *StatusError) {
	select {
	case s.parting <- struct{}{}:
	case <-s.ctx.Done():
		promptly(func() { c.Close() })
		return
	}
	s.wg.Go(func() {
		defer func() { <-s.parting }()
		s.turnAway(c, p, why)
	})
}

// turnAway says why before it closes, if the client's buffer takes that at once.
func (s *Service) turnAway(c *net.UnixConn, p Peer, why *StatusError) {
	s.refused.Add(1)
	s.complain(p, "was turned away: %s", why.Why)
	_ = c.SetWriteDeadline(time.Now().Add(patience)) // It fails only for a closed one.
	m := answer(message{}, nil, why)
	_, _ = c.Write(m.appendTo(nil)) // A client that is gone needs no reason.
	part(c)
}

// part closes a connection after the client can send nothing more and what it sent was
// read: it would lose the last answer otherwise. Descriptors are not taken out of what is
// read: the close of one that this process has is the file system's, which may be the
// client's own.
func part(c *net.UnixConn) {
	promptly(func() {
		defer c.Close()
		if c.CloseRead() != nil || c.SetReadDeadline(time.Now().Add(patience)) != nil {
			return
		}
		for b := make([]byte, maxMessage); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	})
}

func (s *Service) complain(p Peer, format string, args ...any) {
	s.log.Printf("remote: process %d (%s) "+format, append([]any{p.PID, p.AppID}, args...)...)
}

func (s *Service) leave(c *net.UnixConn) {
	part(c)
	s.mu.Lock()
	s.users[s.conns[c]].clients--
	delete(s.conns, c)
	s.mu.Unlock()
}

// forgetUsers forgets those who have no client and have waited long enough for their next
// requests: one who comes again gains nothing by it.
func (s *Service) forgetUsers(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.users {
		if u.clients == 0 && u.pace.TokensAt(now) >= float64(u.pace.Burst()) {
			delete(s.users, id)
		}
	}
}
