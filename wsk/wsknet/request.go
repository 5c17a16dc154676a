package wsknet

import (
	"context"
	"net/netip"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A result is what an IRP had when it was completed.
type result struct {
	wsk.IoStatus
	socket *wsk.Socket
}

// A request is an IRP that is used for one call after the other (IRP-11). Who made
// it owes a free.
type request struct {
	irp  *wsk.IRP
	done chan struct{} // buffered; hears of each completion
}

func newRequest() request { return request{wsk.AllocateIRP(1), make(chan struct{}, 1)} }

func (r request) free() { r.irp.Free() }

func completed(_ *wsk.IRP, done any) ntstatus.Status {
	done.(chan struct{}) <- struct{}{}
	return ntstatus.MoreProcessingRequired
}

// start makes a call.
func (r request) start(call func(*wsk.IRP) ntstatus.Status) {
	r.irp.SetCompletionRoutine(completed, r.done, wsk.InvokeAlways)
	returned := false
	defer func() {
		if !returned { // It panicked, in code of others, and was completed.
			<-r.done
			r.irp.Reuse(ntstatus.Success)
		}
	}()
	call(r.irp)
	returned = true
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
	r.irp.Reuse(ntstatus.Success)
	if !res.Status.Ok() {
		return res, because(ctx, &OpError{Op: op, Status: res.Status})
	}
	return res, nil
}

// do makes a call and waits for it.
func (r request) do(ctx context.Context, op string, call func(*wsk.IRP) ntstatus.Status) (result, error) {
	r.start(call)
	return r.wait(ctx, op)
}

// do makes one call, with an IRP of its own.
func do(ctx context.Context, op string, call func(*wsk.IRP) ntstatus.Status) (result, error) {
	r := newRequest()
	defer r.free()
	return r.do(ctx, op, call)
}

// work is do for a call that always pends: the work is done on this goroutine.
// cancelWith has it end with a context.
func (r request) work(op string, call func(*wsk.IRP) ntstatus.Status) (result, error) {
	r.irp.SetSynchronous()
	r.start(call)
	return r.wait(context.Background(), op)
}

// cancelWith makes calls, the last of which the end of ctx cancels. Between two of
// them the caller asks ctx.
func (r request) cancelWith(ctx context.Context, calls func() error) (err error) {
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		r.irp.Cancel()
		close(cancelled)
	})
	defer func() {
		if !stop() {
			<-cancelled
			r.irp.Reuse(ntstatus.Success) // The next call is another one's.
			err = because(ctx, err)
		}
	}()
	return calls()
}

func (r request) set(ctx context.Context, s *wsk.Socket, op string, level, option, value uint32) error {
	_, err := r.do(ctx, op, func(p *wsk.IRP) ntstatus.Status {
		return s.ControlSocket(wsk.SetOption, option, level, []byte{byte(value), 0, 0, 0}, nil, nil, p)
	})
	return err
}

// open makes a socket of the family that an address has. IPv6 sockets speak
// IPv4 too, as those of package net do. Without a socket the request is freed.
func (r request) open(ctx context.Context, client *wsk.Client, a netip.Addr, category wsk.Category) (*wsk.Socket, error) {
	family := wsk.AFInet6
	if a.Is4() {
		family = wsk.AFInet
	}
	made, err := r.do(ctx, "socket", func(p *wsk.IRP) ntstatus.Status {
		return client.Socket(family, wsk.SockStream, wsk.IPProtoTCP, category, nil, nil, nil, 0, p)
	})
	if err != nil {
		r.free()
		return nil, err
	}
	if family == wsk.AFInet6 {
		if err := r.set(ctx, made.socket, "dual stack", uint32(wsk.IPProtoIPv6), wsk.IPv6V6Only, 0); err != nil {
			r.shut(made.socket)
			return nil, err
		}
	}
	return made.socket, nil
}

// shut closes a socket and frees the request, which it does before the socket is gone:
// its client may deregister then, and leave nothing.
func (r request) shut(s *wsk.Socket) (err error) {
	r.irp.SetSynchronous()
	r.irp.SetCompletionRoutine(func(p *wsk.IRP, done any) ntstatus.Status {
		if st := p.IoStatus().Status; !st.Ok() {
			err = &OpError{Op: "close", Status: st}
		}
		p.Free()
		return completed(p, done)
	}, r.done, wsk.InvokeAlways)
	s.CloseSocket(r.irp)
	<-r.done
	return err
}
