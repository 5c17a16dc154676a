package enforce

import "net/netip"

// A Denial is an operation of a program that a backend refused.
type Denial struct {
	PID    uint32
	AppID  string
	Local  netip.AddrPort // of a bind or listen, where it was meant to be
	Remote netip.AddrPort // not valid for a bind or listen
	Err    error          // an *ale.BlockedError when the policy refused
}
