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
	var blocked *ale.BlockedError
	switch {
	case err == nil:
		return ntstatus.Success
	case errors.As(err, &blocked):
		return ntstatus.AccessDenied
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded):
		return ntstatus.Cancelled // Only cancelling sets deadlines.
	}
	return systemStatus(err)
}
