// Package proxy is the shape of a WFP proxy service, as Microsoft's WFPSampler
// has it, on Winsock Kernel: it accepts a redirected connection, asks for its
// records and its context, sets the records on a new socket, connects to the
// destination that the context names, and carries data both ways.
package proxy

import (
	"net/netip"
	"sync"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/winsock"
)

// recordsBuffer is what WFPSampler asks with.
const recordsBuffer = 8192

// A Service is the proxy.
type Service struct {
	client   *wsk.Client
	listener *wsk.Socket
	addr     netip.AddrPort
	wg       sync.WaitGroup

	mu      sync.Mutex // held while the listener is asked for a connection
	closing bool
}

// Start makes the service listen on loopback.
func Start(client *wsk.Client) (*Service, ntstatus.Status) {
	p := &Service{client: client}
	var st ntstatus.Status
	if p.listener, st = p.socket(wsk.ListenSocket); st != ntstatus.Success {
		return nil, st
	}
	st, _ = call(func(irp *wsk.IRP) { p.listener.Bind(netip.MustParseAddrPort("127.0.0.1:0"), 0, irp) })
	if st == ntstatus.Success {
		st, _ = call(func(irp *wsk.IRP) { p.listener.GetLocalAddress(&p.addr, irp) })
	}
	if st != ntstatus.Success {
		shut(p.listener)
		return nil, st
	}
	p.wg.Go(p.accept)
	return p, ntstatus.Success
}

// Addr is where the service listens.
func (p *Service) Addr() netip.AddrPort { return p.addr }

// Stop ends the listener and waits for the connections.
func (p *Service) Stop() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	shut(p.listener)
	p.wg.Wait()
}

// call makes a call with an IRP and waits for it.
func call(do func(*wsk.IRP)) (ntstatus.Status, int) {
	st, n, _ := callFor(do)
	return st, n
}

func callFor(do func(*wsk.IRP)) (ntstatus.Status, int, *wsk.Socket) {
	st, n, s, _ := callUnless(func(irp *wsk.IRP) bool { do(irp); return true })
	return st, n, s
}

// callUnless is callFor where the call may not be made: then it is false.
func callUnless(do func(*wsk.IRP) bool) (ntstatus.Status, int, *wsk.Socket, bool) {
	irp, done := wsk.AllocateIRP(1), make(chan struct{})
	defer irp.Free()
	irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
		close(done)
		return ntstatus.MoreProcessingRequired
	}, nil, wsk.InvokeAlways)
	if !do(irp) {
		return 0, 0, nil, false
	}
	<-done
	st := irp.IoStatus()
	return st.Status, st.Information, irp.Socket(), true
}

func shut(s *wsk.Socket) { call(func(irp *wsk.IRP) { s.CloseSocket(irp) }) }

func (p *Service) socket(category wsk.Category) (*wsk.Socket, ntstatus.Status) {
	st, _, s := callFor(func(irp *wsk.IRP) {
		p.client.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, category, nil, nil, nil, 0, irp)
	})
	return s, st
}

func (p *Service) accept() {
	for {
		st, _, s, made := callUnless(p.next)
		if !made || st != ntstatus.Success {
			return
		}
		p.wg.Go(func() {
			defer shut(s)
			p.serve(s)
		})
	}
}

// next asks for a connection, unless the listener is being closed: what is pending then
// is cancelled, and nothing may be called any more (WSK-CLOSE-01).
func (p *Service) next(irp *wsk.IRP) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.listener.Accept(0, nil, nil, nil, nil, irp)
	}
	return !p.closing
}

// serve carries one connection. One that was not redirected, or cannot be
// connected on, is reset by its close.
func (p *Service) serve(in *wsk.Socket) {
	records, ok := query(in, wsk.SIOQueryWFPConnectionRedirectRecords)
	if !ok {
		return
	}
	context, ok := query(in, wsk.SIOQueryWFPConnectionRedirectContext)
	if !ok {
		return
	}
	to, err := sockaddr.Parse(context)
	if err != nil {
		return
	}
	out, st := p.socket(wsk.ConnectionSocket)
	if st != ntstatus.Success {
		return
	}
	defer shut(out)
	if p.connect(out, records, to) {
		carry(in, out)
	}
}

// query asks in the user-mode form. Nothing there is FWP_E_NOT_FOUND.
func query(s *wsk.Socket, code uint32) ([]byte, bool) {
	buf := make([]byte, recordsBuffer)
	var n uint32
	if e := (winsock.Socket{WSK: s}).WSAIoctl(code, nil, buf, &n, nil, nil); e != winsock.Success {
		return nil, false
	}
	return buf[:n], true
}

// connect sets the records before the socket is bound, so that the connection is
// known as the redirected one's continuation.
func (p *Service) connect(s *wsk.Socket, records []byte, to netip.AddrPort) bool {
	var n uint32
	if e := (winsock.Socket{WSK: s}).WSAIoctl(wsk.SIOSetWFPConnectionRedirectRecords, records, nil, &n, nil, nil); e != winsock.Success {
		return false
	}
	if st, _ := call(func(irp *wsk.IRP) { s.Bind(netip.AddrPortFrom(netip.IPv4Unspecified(), 0), 0, irp) }); st != ntstatus.Success {
		return false
	}
	st, _ := call(func(irp *wsk.IRP) { s.Connect(to, 0, irp) })
	return st == ntstatus.Success
}

// carry copies both ways until both ends are done.
func carry(a, b *wsk.Socket) {
	var wg sync.WaitGroup
	wg.Go(func() { copyTo(a, b) })
	copyTo(b, a)
	wg.Wait()
}

func copyTo(dst, src *wsk.Socket) {
	buf := make([]byte, recordsBuffer)
	for {
		st, n := call(func(irp *wsk.IRP) { src.Receive(buf, 0, irp) })
		switch {
		case st != ntstatus.Success:
			call(func(irp *wsk.IRP) { dst.Disconnect(nil, wsk.FlagAbortive, irp) })
			return
		case n == 0: // The peer's close goes on to the other end.
			call(func(irp *wsk.IRP) { dst.Disconnect(nil, 0, irp) })
			return
		}
		if st, _ := call(func(irp *wsk.IRP) { dst.Send(buf[:n], 0, irp) }); st != ntstatus.Success {
			call(func(irp *wsk.IRP) { src.Disconnect(nil, wsk.FlagAbortive, irp) })
			return
		}
	}
}
