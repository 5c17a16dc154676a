package wsk

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// status is the NTSTATUS of what the transport or the policy answered.
func status(err error) ntstatus.Status {
	if err == nil {
		return ntstatus.Success
	}
	var blocked *ale.BlockedError
	switch {
	case errors.As(err, &blocked):
		return ntstatus.AccessDenied
	case errors.Is(err, ale.ErrClosed):
		return ntstatus.DeviceNotReady
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return ntstatus.Cancelled // Only cancelling sets deadlines.
	case errors.Is(err, ale.ErrAborted):
		return ntstatus.ConnectionAborted
	}
	return systemStatus(err)
}

// ended is the status of an operation that failed: a layer that stops waiting
// because of ctx answers with a block.
func (s *Socket) ended(ctx context.Context, err error) ntstatus.Status {
	if ctx.Err() != nil {
		return ntstatus.Cancelled
	}
	if b := (*ale.BlockedError)(nil); errors.As(err, &b) {
		s.denial.Store(b)
	}
	return status(err)
}

// Denial says what blocked the newest operation of the socket that the policy
// blocked, nil if none: STATUS_ACCESS_DENIED does not. It is no part of WSK.
func (s *Socket) Denial() *ale.BlockedError { return s.denial.Load() }
