package winsock

import (
	"fmt"
	"io/fs"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An Error is what WSAGetLastError returns after a failure. Zero is success,
// and no error: Err crosses over.
type Error uint32

// The errors of the redirect control codes (RED-UM-05).
const (
	Success                 Error = 0
	ErrorInsufficientBuffer Error = 122        // ERROR_INSUFFICIENT_BUFFER
	WSAOperationAborted     Error = 995        // WSA_OPERATION_ABORTED
	WSAIOIncomplete         Error = 996        // WSA_IO_INCOMPLETE
	WSAIOPending            Error = 997        // WSA_IO_PENDING
	ErrorNotFound           Error = 1168       // ERROR_NOT_FOUND
	WSAEIntr                Error = 10004      // WSAEINTR
	WSAEAcces               Error = 10013      // WSAEACCES
	WSAEFault               Error = 10014      // WSAEFAULT
	WSAEInval               Error = 10022      // WSAEINVAL
	WSAEInProgress          Error = 10036      // WSAEINPROGRESS
	WSAENotSock             Error = 10038      // WSAENOTSOCK
	WSAEMsgSize             Error = 10040      // WSAEMSGSIZE
	WSAENoProtoOpt          Error = 10042      // WSAENOPROTOOPT
	WSAEOpNotSupp           Error = 10045      // WSAEOPNOTSUPP
	WSAENetDown             Error = 10050      // WSAENETDOWN
	WSAEConnReset           Error = 10054      // WSAECONNRESET
	WSAENoBufs              Error = 10055      // WSAENOBUFS
	WSAENotConn             Error = 10057      // WSAENOTCONN
	FWPENotFound            Error = 0x80320008 // FWP_E_NOT_FOUND
)

var names = map[Error]string{
	Success: "success", ErrorInsufficientBuffer: "ERROR_INSUFFICIENT_BUFFER", WSAOperationAborted: "WSA_OPERATION_ABORTED",
	WSAIOIncomplete: "WSA_IO_INCOMPLETE", WSAIOPending: "WSA_IO_PENDING", ErrorNotFound: "ERROR_NOT_FOUND", WSAEIntr: "WSAEINTR",
	WSAEAcces: "WSAEACCES", WSAEFault: "WSAEFAULT", WSAEInval: "WSAEINVAL", WSAEInProgress: "WSAEINPROGRESS", WSAENotSock: "WSAENOTSOCK",
	WSAEMsgSize: "WSAEMSGSIZE", WSAENoProtoOpt: "WSAENOPROTOOPT", WSAEOpNotSupp: "WSAEOPNOTSUPP", WSAENetDown: "WSAENETDOWN",
	WSAEConnReset: "WSAECONNRESET", WSAENoBufs: "WSAENOBUFS", WSAENotConn: "WSAENOTCONN", FWPENotFound: "FWP_E_NOT_FOUND",
}

func (e Error) Error() string {
	if n, ok := names[e]; ok {
		return n
	}
	return fmt.Sprintf("Winsock error %d", uint32(e))
}

// Err is nil for success.
func (e Error) Err() error {
	if e == Success {
		return nil
	}
	return e
}

// Is answers for the errors of the standard library.
func (e Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e == FWPENotFound || e == ErrorNotFound
	case fs.ErrPermission:
		return e == WSAEAcces
	}
	return false
}

// fromStatus is the table from NTSTATUS to what user mode sees.
var fromStatus = map[ntstatus.Status]Error{
	ntstatus.Success: Success, ntstatus.Pending: WSAIOPending, ntstatus.Cancelled: WSAOperationAborted,
	ntstatus.BufferTooSmall: ErrorInsufficientBuffer, ntstatus.BufferOverflow: WSAEMsgSize, ntstatus.NotFound: FWPENotFound,
	ntstatus.AccessDenied: WSAEAcces, ntstatus.IntegerOverflow: WSAEInval, ntstatus.InvalidParameter: WSAEInval,
	ntstatus.InvalidDeviceRequest: WSAEOpNotSupp, ntstatus.NotSupported: WSAEOpNotSupp, ntstatus.InvalidDeviceState: WSAENotConn,
	ntstatus.FileForcedClosed: WSAENotSock, ntstatus.InsufficientResources: WSAENoBufs, ntstatus.ConnectionReset: WSAEConnReset,
	ntstatus.ConnectionAborted: WSAEConnReset, ntstatus.RequestNotAccepted: WSAEOpNotSupp,
}

// FromStatus is the error of a status; WSAENETDOWN for one that the table has not.
func FromStatus(s ntstatus.Status) Error {
	if e, ok := fromStatus[s]; ok {
		return e
	}
	return WSAENetDown
}
