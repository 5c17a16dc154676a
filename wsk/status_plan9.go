package wsk

import (
	"strings"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Plan 9 has texts and no numbers.
func systemStatus(err error) ntstatus.Status {
	switch s := err.Error(); {
	case strings.Contains(s, "connection refused"):
		return ntstatus.ConnectionRefused
	case strings.Contains(s, "address in use"), strings.Contains(s, "address already in use"):
		return ntstatus.AddressAlreadyExists
	case strings.Contains(s, "hungup"), strings.Contains(s, "reset"):
		return ntstatus.ConnectionReset
	}
	return ntstatus.Unsuccessful
}
