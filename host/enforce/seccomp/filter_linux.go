//go:build amd64 || arm64

package seccomp

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Arguments are 64-bit little endian; the flags,
// families and protocols here are ints, of which the kernel reads the low half.
const (
	offNR   = 0
	offArch = 4
)

func offArg(i uint32) uint32 { return 16 + 8*i }

func ret(action uint32) bpf.Instruction         { return bpf.RetConstant{Val: action} }
func refuse(errno unix.Errno) bpf.Instruction   { return ret(unix.SECCOMP_RET_ERRNO | uint32(errno)) }
func load(off uint32) bpf.Instruction           { return bpf.LoadAbsolute{Off: off, Size: 4} }
func unless(v uint32, skip int) bpf.Instruction { return jump(bpf.JumpNotEqual, v, skip) }
func jump(c bpf.JumpTest, v uint32, skip int) bpf.Instruction {
	return bpf.JumpIf{Cond: c, Val: v, SkipTrue: uint8(skip)}
}

// filter returns the program of the traps.
func filter() ([]bpf.RawInstruction, error) {
	p := []bpf.Instruction{
		load(offArch), jump(bpf.JumpEqual, auditArch, 1), refuse(unix.ENOSYS), // i386, int 0x80
		load(offNR), jump(bpf.JumpLessThan, foreignNR, 1), refuse(unix.ENOSYS),
	}
	on := func(nr uint32, body ...bpf.Instruction) {
		p = append(p, unless(nr, len(body)))
		p = append(p, body...)
	}
	on(unix.SYS_CONNECT, ret(unix.SECCOMP_RET_USER_NOTIF))
	// io_uring connects without a system call.
	on(unix.SYS_IO_URING_SETUP, refuse(unix.ENOSYS))
	on(unix.SYS_IO_URING_ENTER, refuse(unix.ENOSYS))
	on(unix.SYS_IO_URING_REGISTER, refuse(unix.ENOSYS))
	// Landlock does not look at MPTCP, SCTP and DCCP (the latter two also come
	// with protocol 0 and another type), nor at SMC and RDS, which open TCP
	// connections inside the kernel.
	on(unix.SYS_SOCKET,
		load(offArg(0)),
		jump(bpf.JumpEqual, unix.AF_SMC, 12),
		jump(bpf.JumpEqual, unix.AF_RDS, 11),
		jump(bpf.JumpEqual, unix.AF_INET, 1),
		unless(unix.AF_INET6, 10),
		load(offArg(1)),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}, // SOCK_TYPE_MASK
		jump(bpf.JumpGreaterThan, unix.SOCK_RAW, 5),
		load(offArg(2)),
		jump(bpf.JumpLessOrEqual, unix.IPPROTO_ICMP, 5), // 0 or ICMP
		jump(bpf.JumpEqual, unix.IPPROTO_TCP, 4),
		jump(bpf.JumpEqual, unix.IPPROTO_UDP, 3),
		jump(bpf.JumpEqual, unix.IPPROTO_ICMPV6, 2),
		refuse(unix.EPROTONOSUPPORT),
		refuse(unix.EAFNOSUPPORT),
		ret(unix.SECCOMP_RET_ALLOW))
	// MSG_FASTOPEN connects; the flags are in a register, so there is no race.
	for _, send := range []struct{ nr, flags uint32 }{{unix.SYS_SENDTO, 3}, {unix.SYS_SENDMSG, 2}, {unix.SYS_SENDMMSG, 3}} {
		on(send.nr, load(offArg(send.flags)), jump(bpf.JumpBitsNotSet, unix.MSG_FASTOPEN, 1), refuse(unix.EOPNOTSUPP), ret(unix.SECCOMP_RET_ALLOW))
	}
	p = append(p, ret(unix.SECCOMP_RET_ALLOW))
	return bpf.Assemble(p)
}
