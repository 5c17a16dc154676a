package seccomp

import "github.com/calloutd/calloutd/host/fwpm"

// Enforces reports whether Run asks a layer about all that a program does there.
// The bind and accept layers are asked about connecting sockets at most, and
// nobody hears of their end.
func Enforces(l fwpm.LayerID) bool {
	switch l.ForFamily(false) {
	case fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEAuthConnectV4, fwpm.LayerALEFlowEstablishedV4:
		return true
	}
	return false
}
