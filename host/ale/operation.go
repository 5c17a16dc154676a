package ale

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An operation is a call of the socket that a callout can hold. Close ends it.
type operation struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
}

var (
	errClosed    = fmt.Errorf("ale: the socket is closed: %w", ntstatus.FileForcedClosed)
	errCancelled = fmt.Errorf("ale: the socket was closed meanwhile: %w", ntstatus.Cancelled)
)

func (s *Socket) check() error {
	if s.closed {
		return errClosed
	}
	return s.e.open()
}

// begin announces an operation, whose context ends with the socket, and asks about
// the socket's grants if it has to. end must follow.
func (s *Socket) begin(ctx context.Context) (*operation, error) {
	op, err := s.announce(ctx)
	if err != nil {
		return nil, err
	}
	if err = s.reclassify(op.ctx); err != nil {
		s.end(op, &err)
		return nil, err
	}
	return op, nil
}

func (s *Socket) announce(ctx context.Context) (*operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	op := &operation{ctx, cancel}
	s.operations = append(s.operations, op)
	return op, nil
}

// closed reports whether the socket was closed during the operation.
func (op *operation) closed() bool { return context.Cause(op.ctx) == errCancelled }

// end is the end of an operation: one that failed because the socket was closed
// says so. The last one of a closed socket takes the socket down.
func (s *Socket) end(op *operation, err *error) {
	if *err != nil && op.closed() {
		*err = errCancelled
	}
	op.cancel(nil)
	s.mu.Lock()
	s.operations = slices.DeleteFunc(s.operations, func(o *operation) bool { return o == op })
	last := s.closed && len(s.operations) == 0
	s.mu.Unlock()
	if last {
		s.teardown()
	}
}

// abandon notes that a connection ended before AUTH_CONNECT was asked: if it did
// because the socket was closed, its endpoint closes (SC-79).
func (s *Socket) abandon(ctx context.Context, remote netip.AddrPort) {
	if context.Cause(ctx) != errCancelled {
		return
	}
	s.mu.Lock()
	s.abandoned = remote
	s.mu.Unlock()
}
