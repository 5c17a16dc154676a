//go:build amd64 || arm64

package seccomp

import (
	"context"
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bind answers a bind().
func (w *worker) bind() unix.Errno {
	sa, e := w.sockaddr(w.n.Data.Args[1], int32(w.n.Data.Args[2]))
	if e != 0 {
		return e
	}
	switch e := w.look(); {
	case e != 0:
		return e
	case !w.sock.inet():
		return w.outside(nil)
	case !w.sock.tcp() && !w.sock.datagram():
		return w.undecidable()
	}
	if e := w.know(); e != 0 {
		return e
	}
	want, e := parseBind(w.sock.domain, sa)
	if e == 0 && w.sock.local.Port() != 0 {
		e = unix.EINVAL // It is bound.
	}
	if e == 0 {
		e = w.mayBind(want.Port())
	}
	if e != 0 {
		return e
	}
	w.in.Local = want
	if w.sock.datagram() {
		d := w.s.datagrams.take(w)
		defer w.s.datagrams.give(d)
		_, err := d.bind(w, want)
		return w.done(err)
	}
	_, err := w.s.opts.ALE.NewSocket(w.in).Bind(w.s.ctx, want, w.bindTo)
	return w.done(err)
}

// performBind binds the program's socket. To bind a TCP socket to nothing in
// particular is left to its connect, which can then share the port with others.
func (w *worker) performBind(_ context.Context, to netip.AddrPort) (netip.AddrPort, error) {
	sa := w.sa[:w.saLen] // It may have a scope.
	if asked := w.n.Data.NR == unix.SYS_BIND; !asked || to != w.in.Local {
		if !asked && w.sock.tcp() && to.Port() == 0 && to.Addr().IsUnspecified() {
			return to, nil
		}
		sa = putSockaddr(w.to[:], w.sock.domain, to)
	}
	if _, e := w.syscall(unix.SYS_BIND, uintptr(w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)), 0); e != 0 {
		return noAddr, callErr(e)
	}
	if w.n.Data.NR == unix.SYS_BIND {
		w.named(&w.s.names.binds, to != w.in.Local)
	}
	local, e := w.bound()
	return local, callErr(e)
}

// parseBind reads an address as bind() does, with its errors.
func parseBind(domain int32, sa []byte) (netip.AddrPort, unix.Errno) {
	if domain == unix.AF_INET && len(sa) >= sockaddr4Len && family(sa) == unix.AF_UNSPEC && binary.NativeEndian.Uint32(sa[4:]) == 0 {
		binary.NativeEndian.PutUint16(sa, unix.AF_INET) // Old programs leave the family out.
	}
	return parse(domain, sa)
}

// listen answers a listen().
func (w *worker) listen() unix.Errno {
	switch e := w.look(); {
	case e != 0:
		return e
	case !w.sock.inet():
		return w.outside(nil)
	case w.sock.datagram():
		return unix.EOPNOTSUPP
	case !w.sock.tcp():
		return w.undecidable()
	}
	if e := w.know(); e != 0 {
		return e
	}
	sock := w.s.opts.ALE.NewSocket(w.in)
	if w.in.Local.Port() == 0 {
		local, err := sock.Bind(w.s.ctx, w.in.Local, w.bindTo)
		if err != nil {
			return w.done(err)
		}
		w.in.Local = local
	}
	backlog := uintptr(int32(w.n.Data.Args[1]))
	return w.done(sock.Listen(w.s.ctx, func() error {
		_, e := w.syscall(unix.SYS_LISTEN, uintptr(w.fd), backlog, 0, 0)
		return callErr(e)
	}))
}
