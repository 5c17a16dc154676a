package enforce

import "net/netip"

// A Denial is an operation of a program that a backend refused.
type Denial struct {
	PID    uint32
	AppID  string
	Remote netip.AddrPort
	Err    error // an *ale.BlockedError when the policy refused
}
