//go:build !linux

package remote

import (
	"context"
	"net"
	"runtime"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

func unsupported(op string) error {
	return &StatusError{Op: op, Status: ntstatus.NotSupported, Why: "a socket cannot be passed to another program on " + runtime.GOOS}
}

// A Service answers clients. There is none here.
type Service struct{}

// New is not supported here.
func New(Options) (*Service, error) { return nil, unsupported("new service") }

// Serve is not supported here.
func (*Service) Serve(*net.UnixListener) error { return unsupported("serve") }

// TakeRecords returns nothing.
func (*Service) TakeRecords(uint64) redirect.Records { return nil }

// Stats returns nothing.
func (*Service) Stats() Stats { return Stats{} }

// Close does nothing.
func (*Service) Close() {}

// A Client asks a Service. There is none here.
type Client struct{}

// Dial is not supported here.
func Dial(context.Context, string) (*Client, error) { return nil, unsupported("dial") }

// Close does nothing.
func (*Client) Close() error { return nil }
