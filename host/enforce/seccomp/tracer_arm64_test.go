//go:build linux

package seccomp

import "golang.org/x/sys/unix"

// The number of a call cannot be set with its registers here: the call is one already.
const harmlessCall = unix.SYS_CONNECT

func becomeConnect(*unix.PtraceRegs) bool { return false }
