// Package ntstatus has the NTSTATUS codes that Winsock Kernel answers with.
package ntstatus

import (
	"context"
	"fmt"
	"io/fs"
	"net"
)

// Status is an NTSTATUS. It implements error so that errors.Is finds it in a
// wrapped error; a function returns a Status or an error, never one as the
// other: Err crosses over.
type Status uint32

//go:generate go run gen.go

func (s Status) Error() string {
	if n, ok := names[s]; ok {
		return n
	}
	return fmt.Sprintf("NTSTATUS 0x%08X", uint32(s))
}

// Ok is NT_SUCCESS: success and information codes, STATUS_PENDING among them.
func (s Status) Ok() bool { return s < 0x80000000 }

// Err is nil if NT_SUCCESS(s).
func (s Status) Err() error {
	if s.Ok() {
		return nil
	}
	return s
}

// Is answers for the errors of the standard library.
func (s Status) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return s == NotFound
	case fs.ErrPermission:
		return s == AccessDenied
	case context.Canceled:
		return s == Cancelled
	case net.ErrClosed:
		return s == FileForcedClosed
	}
	return false
}
