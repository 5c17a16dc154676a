// Package wsknet is Winsock Kernel as net.Conn, net.Listener and a dialer. It
// uses only what wsk exports, and the transport to move bytes.
package wsknet

import (
	"context"
	"errors"
	"net"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An OpError is an operation that ended with a failure: errors.Is finds its status,
// and the system error that package net would have, such as syscall.ECONNREFUSED. One that
// the end of a context cancelled is context.Canceled or context.DeadlineExceeded; one of a
// client that was closed is net.ErrClosed. It is a net.Error.
type OpError struct {
	Op     string
	Status ntstatus.Status
	Denial error // for STATUS_ACCESS_DENIED of a policy, the *ale.BlockedError; else nil
	ended  error // the error of a context, for STATUS_CANCELLED by its end; else nil
}

func (e *OpError) Error() string {
	s := "wsk: " + e.Op + ": " + e.Status.Error()
	if e.Denial != nil {
		s += ": " + e.Denial.Error()
	}
	if e.ended != nil {
		s += ": " + e.ended.Error()
	}
	return s
}

// Unwrap gives the status and the denial. Where a context ended the operation it gives the error
// of that: the status does not say whether it was a deadline.
func (e *OpError) Unwrap() []error {
	switch {
	case e.ended != nil:
		return []error{e.ended}
	case e.Denial != nil:
		return []error{e.Status, e.Denial}
	case e.Status == ntstatus.DeviceNotReady: // The client was closed (WSK-REG-05).
		return []error{e.Status, net.ErrClosed}
	}
	return []error{e.Status}
}

// Timeout reports whether it took too long: for the deadline of a context, or for the system.
func (e *OpError) Timeout() bool {
	return errors.Is(e.ended, context.DeadlineExceeded) || e.Status == ntstatus.IOTimeout
}

// Temporary is Timeout, as what package net calls temporary mostly is.
func (e *OpError) Temporary() bool { return e.Timeout() }

// because adds to an error of an operation that a context, which has ended, cancelled.
func because(ctx context.Context, err error) error {
	var op *OpError
	if errors.As(err, &op) && op.Status == ntstatus.Cancelled {
		op.ended = endOf(ctx)
	}
	return err
}

// explain adds to an error of an operation of s what the policy had against it.
func explain(s *wsk.Socket, err error) error {
	var op *OpError
	if d := s.Denial(); d != nil && errors.As(err, &op) && op.Status == ntstatus.AccessDenied {
		op.Denial = d
	}
	return err
}
