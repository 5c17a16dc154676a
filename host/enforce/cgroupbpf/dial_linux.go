//go:build amd64 || arm64

package cgroupbpf

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/calloutd/calloutd/host/enforce/internal/routes"
	"golang.org/x/sys/unix"
)

// dial connects from where the program is, unless a callout redirected it: the proxies
// that it names are here. Only the socket is made there: to wait on a thread of that
// namespace would take a thread for each connection, and when there are too many the
// process ends.
func (h *home) dial(ctx context.Context, d *net.Dialer, to netip.AddrPort, redirected bool) (net.Conn, error) {
	if !redirected {
		d.Control = h.moved
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// source is from where what dial and dialUDP connect goes there: it is calloutd's socket, and not that of the program.
func (h *home) source(protocol uint8, to netip.AddrPort, redirected bool) (netip.Addr, error) {
	table := &h.routes
	if redirected || h.space == nil {
		table = &h.a.routes
	}
	return table.Source(&routes.Query{To: plain(to), Protocol: protocol, User: uint32(os.Geteuid())})
}

// moved puts a socket of the program's namespace in the place of one that is to connect.
func (h *home) moved(network, _ string, c syscall.RawConn) error {
	family := unix.AF_INET
	if strings.HasSuffix(network, "6") {
		family = unix.AF_INET6
	}
	fd := -1
	err := h.do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if e := c.Control(func(own uintptr) { err = os.NewSyscallError("dup3", unix.Dup3(fd, int(own), unix.O_CLOEXEC)) }); e != nil {
		return e
	}
	return err
}
