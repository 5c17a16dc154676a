package wsktest

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/sdk/go/sockaddr"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// addr reads an address: a literal, @name for where a socket is, mapped:name
// for that as an IPv4-mapped address, or host:@name for its port elsewhere.
func (w *world) addr(s string) (netip.AddrPort, error) {
	if name, ok := strings.CutPrefix(s, "mapped:"); ok { // as an IPv4-mapped address
		a, err := w.addr("@" + name)
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()), err
	}
	if host, name, ok := strings.Cut(s, ":@"); ok { // the port of name at another address
		a, err := w.addr("@" + name)
		if err != nil {
			return a, err
		}
		return netip.ParseAddrPort(host + ":" + strconv.Itoa(int(a.Port())))
	}
	name, ok := strings.CutPrefix(s, "@")
	if !ok {
		return netip.ParseAddrPort(s)
	}
	if l := w.listeners[name]; l != nil {
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	}
	if c := w.conns[name]; c != nil {
		return c.LocalAddr().(*net.TCPAddr).AddrPort(), nil
	}
	if c := w.packets[name]; c != nil {
		return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	sock := w.socket(name)
	if sock == nil {
		return netip.AddrPort{}, fmt.Errorf("there is no socket %q", name)
	}
	var a netip.AddrPort
	p := w.start(nil, func(irp *wsk.IRP) ntstatus.Status { return sock.GetLocalAddress(&a, irp) })
	if err := p.wait(); err != nil {
		return a, err
	}
	return a, p.status().Status.Err()
}

// number reads a number: digits, $name, $name-1, $name+100.
func (w *world) number(s string) (int, error) {
	name, ok := strings.CutPrefix(s, "$")
	if !ok {
		n, err := strconv.ParseInt(s, 0, 64)
		return int(n), err
	}
	off := 0
	if i := strings.IndexAny(name, "+-"); i >= 0 {
		var err error
		if off, err = strconv.Atoi(name[i:]); err != nil {
			return 0, err
		}
		name = name[:i]
	}
	n, ok := w.numbers[name]
	if !ok {
		return 0, fmt.Errorf("$%s has no value", name)
	}
	return n + off, nil
}

// blob reads bytes: $name, hex:..., size:N, sockaddr:A, sockaddrs:A,B (two
// SOCKADDR_STORAGE), addresses:A,B (a SOCKET_ADDRESS_LIST), or text.
func (w *world) blob(s string) ([]byte, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case strings.HasPrefix(s, "$"):
		b, ok := w.blobs[s[1:]]
		if !ok {
			return nil, fmt.Errorf("%s has no value", s)
		}
		return b, nil
	case kind == "hex":
		return hex.DecodeString(rest)
	case kind == "size":
		n, err := w.number(rest)
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('a' + i%26)
		}
		return b, err
	case kind == "sockaddr":
		a, err := w.addr(rest)
		return wsk.AppendSockaddr(nil, a), err
	case kind == "addresses":
		var list []netip.Addr
		for _, f := range strings.Split(rest, ",") {
			a, err := netip.ParseAddr(f)
			if err != nil {
				return nil, err
			}
			list = append(list, a)
		}
		return wsk.AppendAddressList(nil, list), nil
	case kind == "sockaddrs":
		var b []byte
		for _, f := range strings.Split(rest, ",") {
			a, err := w.addr(f)
			if err != nil {
				return nil, err
			}
			b = sockaddr.Append(b, a)
		}
		return b, nil
	}
	return []byte(s), nil
}
