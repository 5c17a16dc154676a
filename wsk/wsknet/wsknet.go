// Package wsknet is Winsock Kernel as net.Conn, net.Listener and a dialer. It
// uses only what wsk exports.
package wsknet

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An OpError is an operation that ended with a failure.
type OpError struct {
	Op     string
	Status ntstatus.Status
}

func (e *OpError) Error() string { return "wsk: " + e.Op + ": " + e.Status.Error() }
func (e *OpError) Unwrap() error { return e.Status }

// A result is what an IRP had when it was completed.
type result struct {
	wsk.IoStatus
	socket *wsk.Socket
}

// do runs one call with an IRP of its own and waits for its completion. When
// ctx ends, the call is cancelled.
func do(ctx context.Context, op string, call func(*wsk.IRP) ntstatus.Status) (result, error) {
	irp, done := wsk.AllocateIRP(1), make(chan struct{})
	irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		close(done)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	call(irp)
	select {
	case <-done:
	case <-ctx.Done():
		irp.Cancel()
		<-done
	}
	r := result{irp.IoStatus(), irp.Socket()}
	irp.Free()
	if !r.Status.Ok() {
		return r, &OpError{op, r.Status}
	}
	return r, nil
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

// shut closes a socket. The close of one that is closed already changes nothing.
func shut(s *wsk.Socket) error {
	_, err := do(context.Background(), "close", s.CloseSocket)
	return err
}
