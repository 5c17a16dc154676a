//go:build !plan9

package wsk

import (
	"errors"
	"syscall"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// errnoStatus is what a system error is in NTSTATUS. Systems add their own
// numbers in status_windows.go.
var errnoStatus = map[syscall.Errno]ntstatus.Status{
	syscall.ECONNREFUSED:  ntstatus.ConnectionRefused,
	syscall.ECONNRESET:    ntstatus.ConnectionReset,
	syscall.EPIPE:         ntstatus.ConnectionReset,
	syscall.ECONNABORTED:  ntstatus.ConnectionAborted,
	syscall.EADDRINUSE:    ntstatus.AddressAlreadyExists,
	syscall.EADDRNOTAVAIL: ntstatus.InvalidAddressComponent,
	syscall.EAFNOSUPPORT:  ntstatus.InvalidAddressComponent,
	syscall.EACCES:        ntstatus.AccessDenied,
	syscall.EPERM:         ntstatus.AccessDenied,
	syscall.ETIMEDOUT:     ntstatus.IOTimeout,
	syscall.ENETUNREACH:   ntstatus.NetworkUnreachable,
	syscall.EHOSTUNREACH:  ntstatus.HostUnreachable,
	syscall.EMSGSIZE:      ntstatus.InvalidBufferSize,
	syscall.EINVAL:        ntstatus.InvalidParameter,
	syscall.EMFILE:        ntstatus.InsufficientResources,
	syscall.ENFILE:        ntstatus.InsufficientResources,
	syscall.ENOBUFS:       ntstatus.InsufficientResources,
	syscall.ENOMEM:        ntstatus.InsufficientResources,
	syscall.EISCONN:       ntstatus.ConnectionActive,
	syscall.ENOTCONN:      ntstatus.InvalidDeviceState,
}

func systemStatus(err error) ntstatus.Status {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if st, ok := errnoStatus[errno]; ok {
			return st
		}
	}
	return ntstatus.Unsuccessful
}
