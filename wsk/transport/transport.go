// Package transport has TCP sockets that are bound before it is known what they
// are for, which package net cannot make: WskBind comes before WskConnect and
// WskListen. It is for the packages of this module and changes with them; others
// use package wsknet.
package transport

import (
	"net"
	"syscall"
)

// A Stream is a TCP connection: a *Conn, or one of package net.
type Stream interface {
	net.Conn
	syscall.Conn
}

// Options are the socket options that count only before binding.
type Options struct {
	// DualStack lets an IPv6 socket speak IPv4 through v4-mapped addresses.
	DualStack bool
	// Listens says that the socket may become a listener: an address that only
	// connections in TIME_WAIT still use is then free.
	Listens bool
	// Shared lets several sockets that all ask for it have one address, the
	// SO_REUSEADDR of Windows.
	Shared bool
}
