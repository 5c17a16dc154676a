//go:build amd64 || arm64

package seccomp

import (
	"slices"

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

type program = []bpf.Instruction

var (
	allow = ret(unix.SECCOMP_RET_ALLOW)
	trap  = ret(unix.SECCOMP_RET_USER_NOTIF)
)

func ret(action uint32) program       { return program{bpf.RetConstant{Val: action}} }
func refuse(errno unix.Errno) program { return ret(unix.SECCOMP_RET_ERRNO | uint32(errno)) }
func load(off uint32) program         { return program{bpf.LoadAbsolute{Off: off, Size: 4}} }
func mask(bits uint32) program        { return program{bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: bits}} }

// when runs body if what was loaded compares to v.
func when(c bpf.JumpTest, v uint32, body ...program) program {
	p := slices.Concat(body...)
	return append(program{bpf.JumpIf{Cond: c, Val: v, SkipFalse: uint8(len(p))}}, p...)
}

func is(v uint32, body ...program) program { return when(bpf.JumpEqual, v, body...) }

// filter returns the program of the traps. It must not refuse by address, which
// the program can change: only what is in registers counts.
func filter(opts *Options) ([]bpf.RawInstruction, error) {
	// MSG_FASTOPEN connects. A message has its address in memory, so all are trapped.
	send := func(nr, flags uint32, otherwise ...program) program {
		return is(nr, load(offArg(flags)), when(bpf.JumpBitsSet, unix.MSG_FASTOPEN, refuse(unix.EOPNOTSUPP)), slices.Concat(otherwise...))
	}
	var names, isolate program
	made := allow
	if opts.ShowRequested {
		names = slices.Concat(is(unix.SYS_GETPEERNAME, trap), is(unix.SYS_GETSOCKNAME, trap))
	}
	if opts.Isolate {
		made, isolate = trap, slices.Concat(
			// Who shares a thread's descriptors is one of its process. clone3 has its
			// flags in memory; who is refused it uses clone.
			is(unix.SYS_CLONE, load(offArg(0)), mask(unix.CLONE_FILES|unix.CLONE_THREAD), is(unix.CLONE_FILES, refuse(unix.EPERM)), allow),
			is(unix.SYS_CLONE3, refuse(unix.ENOSYS)))
	}
	return bpf.Assemble(slices.Concat(
		load(offArch), when(bpf.JumpNotEqual, auditArch, refuse(unix.ENOSYS)), // i386, int 0x80
		load(offNR), when(bpf.JumpGreaterOrEqual, foreignNR, refuse(unix.ENOSYS)),
		is(unix.SYS_CONNECT, trap), is(unix.SYS_BIND, trap), is(unix.SYS_LISTEN, trap),
		is(unix.SYS_ACCEPT, trap), is(unix.SYS_ACCEPT4, trap), names, isolate,
		// io_uring connects without a system call.
		is(unix.SYS_IO_URING_SETUP, refuse(unix.ENOSYS)),
		is(unix.SYS_IO_URING_ENTER, refuse(unix.ENOSYS)),
		is(unix.SYS_IO_URING_REGISTER, refuse(unix.ENOSYS)),
		is(unix.SYS_SOCKET, sockets(made)),
		// TIPC makes pairs, too, of sockets that also send to others.
		is(unix.SYS_SOCKETPAIR, load(offArg(0)), is(unix.AF_UNIX, allow), refuse(unix.EOPNOTSUPP)),
		send(unix.SYS_SENDTO, 3, // send() has no address.
			load(offArg(4)), when(bpf.JumpNotEqual, 0, trap), load(offArg(4)+4), when(bpf.JumpNotEqual, 0, trap), allow),
		send(unix.SYS_SENDMSG, 2, trap), send(unix.SYS_SENDMMSG, 3, trap),
		is(unix.SYS_SETGROUPS, trap), // What is known about the thread changes.
		is(unix.SYS_USERFAULTFD, load(offArg(0)), userFaults), is(unix.SYS_IOCTL, load(offArg(1)), is(userfaultfdNew, load(offArg(2)), userFaults), types, allow),
		// PR_SET_MM_EXE_FILE changes which program /proc says this is.
		is(unix.SYS_SETSOCKOPT, load(offArg(1)), is(unix.SOL_IP, routes4), is(unix.SOL_IPV6, routes6), allow),
		is(unix.SYS_PRCTL, load(offArg(0)), is(unix.PR_SET_MM, refuse(unix.EPERM)), allow),
		allow))
}

// A packet with a source route goes to the first address of the route, which may be
// anywhere, and not where the socket is connected. None may be set; to take one away
// (a length of 0) does no harm.
var (
	route   = slices.Concat(load(offArg(4)), is(0, allow), refuse(unix.EPERM))
	routes4 = slices.Concat(load(offArg(2)), is(unix.IP_OPTIONS, route), allow)
	routes6 = slices.Concat(load(offArg(2)), is(unix.IPV6_RTHDR, route), is(unix.IPV6_2292PKTOPTIONS, route),
		// A flow label may bring options along, after its request.
		is(flowLabelMgr, load(offArg(4)), when(bpf.JumpGreaterThan, sizeofFlowLabel, refuse(unix.EPERM)), allow), allow)
)

const (
	flowLabelMgr    = 32 // IPV6_FLOWLABEL_MGR
	sizeofFlowLabel = 32 // struct in6_flowlabel_req
)

// A program that serves its own faults would hold up the supervisor, which reads its
// memory. One that serves those of its own instructions only does not (UFFD_USER_MODE_ONLY).
var userFaults = slices.Concat(when(bpf.JumpBitsSet, userModeOnly, allow), refuse(unix.EPERM))

const (
	userModeOnly   = 1      // UFFD_USER_MODE_ONLY
	userfaultfdNew = 0xaa00 // USERFAULTFD_IOC_NEW, of /dev/userfaultfd
)

// A program that types into the terminal that it shares with a shell has that one connect,
// which nobody decides.
var types = slices.Concat(is(unix.TIOCSTI, refuse(unix.EPERM)), is(unix.TIOCLINUX, refuse(unix.EPERM)))

// sockets decides which sockets may be made: those whose connects can be decided
// on, and those that reach no network. The others connect in ways that nobody
// here looks at: MPTCP, SCTP and DCCP (which also come with protocol 0 and
// another type), SMC, RDS and RxRPC (which connect inside the kernel), packet
// and raw sockets (on which a program brings its own TCP), vsock (another host).
// made is what becomes of those that see the network.
func sockets(made program) program {
	return slices.Concat(
		load(offArg(0)),
		is(unix.AF_UNIX, allow), is(unix.AF_ALG, allow),
		is(unix.AF_NETLINK, load(offArg(2)), is(unix.NETLINK_ROUTE, made), allow),
		is(unix.AF_PACKET, refuse(unix.EPERM)),
		when(bpf.JumpNotEqual, unix.AF_INET, when(bpf.JumpNotEqual, unix.AF_INET6, refuse(unix.EAFNOSUPPORT))),
		load(offArg(1)), mask(0xf), // SOCK_TYPE_MASK
		is(unix.SOCK_STREAM, load(offArg(2)), is(0, made), is(unix.IPPROTO_TCP, made), refuse(unix.EPROTONOSUPPORT)),
		is(unix.SOCK_DGRAM, load(offArg(2)), is(0, made), is(unix.IPPROTO_UDP, made),
			is(unix.IPPROTO_ICMP, made), is(unix.IPPROTO_ICMPV6, made), refuse(unix.EPROTONOSUPPORT)),
		is(unix.SOCK_RAW, refuse(unix.EPERM)), // What an unprivileged program is told.
		refuse(unix.EPROTONOSUPPORT))
}
