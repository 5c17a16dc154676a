package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
	return s.sockets.set(&t, p.UID, sealed, time.Now())
}

// receive reads a packet with its descriptors, which the caller closes, also when there is an
// error: an empty packet, which is the end, may have some. The kernel closes those for which
// there is no room: there is room for two, one more than a request has.
func receive(c *net.UnixConn, b []byte) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	messages, perr := unix.ParseSocketControlMessage(oob[:oobn])
	err = errors.Join(err, perr)
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
