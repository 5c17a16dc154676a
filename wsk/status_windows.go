package wsk

import (
	"syscall"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// The numbers that Winsock really answers with (winerror.h).
func init() {
	for errno, st := range map[syscall.Errno]ntstatus.Status{
		10013: ntstatus.AccessDenied, 10022: ntstatus.InvalidParameter, 10024: ntstatus.InsufficientResources,
		10040: ntstatus.InvalidBufferSize, 10047: ntstatus.InvalidAddressComponent, 10048: ntstatus.AddressAlreadyExists,
		10049: ntstatus.InvalidAddressComponent, 10051: ntstatus.NetworkUnreachable, 10053: ntstatus.ConnectionAborted,
		10054: ntstatus.ConnectionReset, 10055: ntstatus.InsufficientResources, 10056: ntstatus.ConnectionActive,
		10057: ntstatus.InvalidDeviceState, 10060: ntstatus.IOTimeout, 10061: ntstatus.ConnectionRefused,
		10065: ntstatus.HostUnreachable,
	} {
		errnoStatus[errno] = st
	}
}
