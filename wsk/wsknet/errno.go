//go:build !plan9

package wsknet

import (
	"syscall"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// errnos are the system errors that programs look for in those of package net.
var errnos = map[ntstatus.Status]syscall.Errno{
	ntstatus.ConnectionRefused:       syscall.ECONNREFUSED,
	ntstatus.ConnectionReset:         syscall.ECONNRESET,
	ntstatus.ConnectionAborted:       syscall.ECONNABORTED,
	ntstatus.AddressAlreadyExists:    syscall.EADDRINUSE,
	ntstatus.InvalidAddressComponent: syscall.EADDRNOTAVAIL,
	ntstatus.AccessDenied:            syscall.EACCES,
	ntstatus.IOTimeout:               syscall.ETIMEDOUT,
	ntstatus.NetworkUnreachable:      syscall.ENETUNREACH,
	ntstatus.HostUnreachable:         syscall.EHOSTUNREACH,
}

// Is lets errors.Is find syscall.ECONNREFUSED and its kind, as in an error of package net:
// who tries again after some of them need not know of NTSTATUS.
func (e *OpError) Is(target error) bool {
	errno, ok := errnos[e.Status]
	return ok && target == errno
}
