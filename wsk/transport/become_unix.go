//go:build unix && !solaris && !linux

package transport

import (
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// become closes the socket and returns what package net makes of a duplicate. Only
// package net's own is for the poller, which leaves files alone that block.
func become[T any](s *Socket, of func(*os.File) (T, error)) (made T, err error) {
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, 0); err != nil {
		return made, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(s.fd), "tcp")
	s.fd = -1
	defer f.Close()
	return of(f)
}

// conn makes the socket, which is connected, a Conn.
func (s *Socket) conn(netip.AddrPort) (*Conn, error) {
	c, err := become(s, net.FileConn)
	if err != nil {
		return nil, err
	}
	return &Conn{c.(*net.TCPConn)}, nil
}

// listener makes the socket, which listens, a Listener.
func (s *Socket) listener() (*Listener, error) {
	l, err := become(s, net.FileListener)
	if err != nil {
		return nil, err
	}
	return &Listener{l.(*net.TCPListener)}, nil
}

// tune has nothing to do: package net tunes what it connects and accepts.
func tune(int) {}
