//go:build linux

package seccomp

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	foreignNR = 0x40000000 // x32 system calls have this bit
)
