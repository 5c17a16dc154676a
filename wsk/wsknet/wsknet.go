// Package wsknet is Winsock Kernel as net.Conn, net.Listener and a dialer. It
// uses only what wsk exports, and the transport to move bytes.
package wsknet

import (
	"context"
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An OpError is an operation that ended with a failure.
type OpError struct {
	Op     string
	Status ntstatus.Status
	Denial error // for STATUS_ACCESS_DENIED of a policy, the *ale.BlockedError; else nil
}

func (e *OpError) Error() string {
	s := "wsk: " + e.Op + ": " + e.Status.Error()
	if e.Denial != nil {
		s += ": " + e.Denial.Error()
	}
	return s
}

// Unwrap gives the status and the denial.
func (e *OpError) Unwrap() []error {
	if e.Denial == nil {
		return []error{e.Status}
	}
	return []error{e.Status, e.Denial}
}

// explain adds to an error of an operation of s what the policy had against it.
func explain(s *wsk.Socket, err error) error {
	var op *OpError
	if d := s.Denial(); d != nil && errors.As(err, &op) && op.Status == ntstatus.AccessDenied {
		op.Denial = d
	}
	return err
}

// A result is what an IRP had when it was completed.
type result struct {
	wsk.IoStatus
	socket *wsk.Socket
}

// A request is a call that was made with an IRP of its own.
type request struct {
	irp  *wsk.IRP
	done chan struct{}
}

// start makes a call.
func start(call func(*wsk.IRP) ntstatus.Status) request {
	r := request{wsk.AllocateIRP(1), make(chan struct{})}
	r.irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		close(r.done)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	call(r.irp)
	return r
}

// wait waits for the completion. When ctx ends, the call is cancelled.
func (r request) wait(ctx context.Context, op string) (result, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		r.irp.Cancel()
		<-r.done
	}
	res := result{r.irp.IoStatus(), r.irp.Socket()}
	r.irp.Free()
	if !res.Status.Ok() {
		return res, &OpError{Op: op, Status: res.Status}
	}
	return res, nil
}

// do makes a call and waits for it.
func do(ctx context.Context, op string, call func(*wsk.IRP) ntstatus.Status) (result, error) {
	return start(call).wait(ctx, op)
}

func set(ctx context.Context, s *wsk.Socket, op string, level, option, value uint32) error {
	_, err := do(ctx, op, func(p *wsk.IRP) ntstatus.Status {
		return s.ControlSocket(wsk.SetOption, option, level, []byte{byte(value), 0, 0, 0}, nil, nil, p)
	})
	return err
}

// open makes a socket of the family that an address has. IPv6 sockets speak
// IPv4 too, as those of package net do.
func open(ctx context.Context, client *wsk.Client, a netip.Addr, category wsk.Category) (*wsk.Socket, error) {
	family := wsk.AFInet6
	if a.Is4() {
		family = wsk.AFInet
	}
	r, err := do(ctx, "socket", func(p *wsk.IRP) ntstatus.Status {
		return client.Socket(family, wsk.SockStream, wsk.IPProtoTCP, category, nil, nil, nil, 0, p)
	})
	if err != nil {
		return nil, err
	}
	if family == wsk.AFInet6 {
		if err := set(ctx, r.socket, "dual stack", uint32(wsk.IPProtoIPv6), wsk.IPv6V6Only, 0); err != nil {
			shut(r.socket)
			return nil, err
		}
	}
	return r.socket, nil
}

// shut closes a socket.
func shut(s *wsk.Socket) error {
	_, err := do(context.Background(), "close", s.CloseSocket)
	return err
}
