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

// The codes of the WSK and WFP pages.
const (
	Success                Status = 0          // STATUS_SUCCESS
	Pending                Status = 0x00000103 // STATUS_PENDING
	BufferOverflow         Status = 0x80000005 // STATUS_BUFFER_OVERFLOW
	Unsuccessful           Status = 0xC0000001 // STATUS_UNSUCCESSFUL
	InvalidParameter       Status = 0xC000000D // STATUS_INVALID_PARAMETER
	InvalidDeviceRequest   Status = 0xC0000010 // STATUS_INVALID_DEVICE_REQUEST
	MoreProcessingRequired Status = 0xC0000016 // STATUS_MORE_PROCESSING_REQUIRED
	AccessDenied           Status = 0xC0000022 // STATUS_ACCESS_DENIED
	BufferTooSmall         Status = 0xC0000023 // STATUS_BUFFER_TOO_SMALL
	IntegerOverflow        Status = 0xC0000095 // STATUS_INTEGER_OVERFLOW
	FileForcedClosed       Status = 0xC00000B6 // STATUS_FILE_FORCED_CLOSED
	NotSupported           Status = 0xC00000BB // STATUS_NOT_SUPPORTED
	RequestNotAccepted     Status = 0xC00000D0 // STATUS_REQUEST_NOT_ACCEPTED
	Cancelled              Status = 0xC0000120 // STATUS_CANCELLED
	InvalidDeviceState     Status = 0xC0000184 // STATUS_INVALID_DEVICE_STATE
	AddressAlreadyExists   Status = 0xC000020A // STATUS_ADDRESS_ALREADY_EXISTS
	ConnectionReset        Status = 0xC000020D // STATUS_CONNECTION_RESET
	NotFound               Status = 0xC0000225 // STATUS_NOT_FOUND
	ConnectionRefused      Status = 0xC0000236 // STATUS_CONNECTION_REFUSED
	ProtocolNotSupported   Status = 0xC000A013 // STATUS_PROTOCOL_NOT_SUPPORTED
)

var names = map[Status]string{
	Success: "STATUS_SUCCESS", Pending: "STATUS_PENDING", BufferOverflow: "STATUS_BUFFER_OVERFLOW",
	Unsuccessful: "STATUS_UNSUCCESSFUL", InvalidParameter: "STATUS_INVALID_PARAMETER",
	InvalidDeviceRequest: "STATUS_INVALID_DEVICE_REQUEST", MoreProcessingRequired: "STATUS_MORE_PROCESSING_REQUIRED",
	AccessDenied: "STATUS_ACCESS_DENIED", BufferTooSmall: "STATUS_BUFFER_TOO_SMALL", IntegerOverflow: "STATUS_INTEGER_OVERFLOW",
	FileForcedClosed: "STATUS_FILE_FORCED_CLOSED", NotSupported: "STATUS_NOT_SUPPORTED", RequestNotAccepted: "STATUS_REQUEST_NOT_ACCEPTED",
	Cancelled: "STATUS_CANCELLED", InvalidDeviceState: "STATUS_INVALID_DEVICE_STATE", AddressAlreadyExists: "STATUS_ADDRESS_ALREADY_EXISTS",
	ConnectionReset: "STATUS_CONNECTION_RESET", NotFound: "STATUS_NOT_FOUND", ConnectionRefused: "STATUS_CONNECTION_REFUSED",
	ProtocolNotSupported: "STATUS_PROTOCOL_NOT_SUPPORTED",
}

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
