//go:build linux && (amd64 || arm64)

package seccomp

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict runs the filter on a system call. The virtual machine reads big-endian
// words where the kernel reads its own.
func verdict(t testing.TB, vm *bpf.VM, arch, nr uint32, args ...uint64) string {
	data := binary.BigEndian.AppendUint32(nil, nr)
	data = binary.BigEndian.AppendUint32(data, arch)
	data = binary.BigEndian.AppendUint64(data, 0)
	for i := range 6 {
		a := uint64(0)
		if i < len(args) {
			a = args[i]
		}
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	r, err := vm.Run(data)
	require.NoError(t, err)
	switch action := uint32(r); action & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW:
		return "allow"
	case unix.SECCOMP_RET_USER_NOTIF:
		return "trap"
	case unix.SECCOMP_RET_ERRNO:
		return name(unix.Errno(action & unix.SECCOMP_RET_DATA))
	default:
		return fmt.Sprintf("%#x", action)
	}
}

func TestFilter(t *testing.T) {
	raw, err := filter(&Options{})
	require.NoError(t, err)
	prog, ok := bpf.Disassemble(raw)
	require.True(t, ok)
	vm, err := bpf.NewVM(prog)
	require.NoError(t, err)
	const high = 0xdead_beef << 32 // The kernel ignores the high half of an int.
	sock := func(domain, kind, protocol uint64) []uint64 {
		return []uint64{domain | high, kind | high, protocol | high}
	}
	for _, c := range []struct {
		what string
		nr   uint32
		args []uint64
		want string
	}{
		{"connect", unix.SYS_CONNECT, nil, "trap"},
		{"write", unix.SYS_WRITE, nil, "allow"},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, nil, "ENOSYS"},
		{"io_uring_enter", unix.SYS_IO_URING_ENTER, nil, "ENOSYS"},
		{"io_uring_register", unix.SYS_IO_URING_REGISTER, nil, "ENOSYS"},
		{"bind", unix.SYS_BIND, nil, "trap"},
		{"listen", unix.SYS_LISTEN, nil, "trap"},
		{"accept", unix.SYS_ACCEPT, nil, "trap"},
		{"accept4", unix.SYS_ACCEPT4, nil, "trap"},
		{"getpeername", unix.SYS_GETPEERNAME, nil, "allow"},
		{"setgroups", unix.SYS_SETGROUPS, nil, "trap"},
		{"send", unix.SYS_SENDTO, []uint64{3, 0, 0, unix.MSG_NOSIGNAL}, "allow"},
		{"sendto", unix.SYS_SENDTO, []uint64{3, 0, 0, unix.MSG_NOSIGNAL, 0x1000}, "trap"},
		{"sendto high", unix.SYS_SENDTO, []uint64{3, 0, 0, 0, 1 << 40}, "trap"},
		{"sendto MSG_FASTOPEN", unix.SYS_SENDTO, []uint64{3, 0, 0, unix.MSG_NOSIGNAL | unix.MSG_FASTOPEN | high}, "EOPNOTSUPP"},
		{"sendmsg", unix.SYS_SENDMSG, []uint64{3, 0, 0}, "trap"},
		{"sendmsg MSG_FASTOPEN", unix.SYS_SENDMSG, []uint64{3, 0, unix.MSG_FASTOPEN}, "EOPNOTSUPP"},
		{"sendmmsg", unix.SYS_SENDMMSG, []uint64{3, 0, 1, 0}, "trap"},
		{"sendmmsg MSG_FASTOPEN", unix.SYS_SENDMMSG, []uint64{3, 0, 1, unix.MSG_FASTOPEN}, "EOPNOTSUPP"},
		{"prctl", unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE}, "allow"},
		{"prctl PR_SET_MM", unix.SYS_PRCTL, []uint64{unix.PR_SET_MM}, "EPERM"},
		{"TIOCGWINSZ", unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ, 0x1000}, "allow"},
		{"TIOCSTI", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI | high, 0x1000}, "EPERM"},
		{"TIOCLINUX", unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX | high, 0x1000}, "EPERM"},
		{"setsockopt", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IP, unix.IP_TTL, 0x1000, 4}, "allow"},
		{"setsockopt of TCP", unix.SYS_SETSOCKOPT, []uint64{3, unix.IPPROTO_TCP, unix.IP_OPTIONS, 0x1000, 4}, "allow"},
		{"IP_OPTIONS", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IP | high, unix.IP_OPTIONS | high, 0x1000, 8 | high}, "EPERM"},
		{"no IP_OPTIONS", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IP, unix.IP_OPTIONS, 0, 0}, "allow"},
		{"IPV6_RTHDR", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IPV6, unix.IPV6_RTHDR, 0x1000, 24}, "EPERM"},
		{"IPV6_2292PKTOPTIONS", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IPV6, unix.IPV6_2292PKTOPTIONS, 0x1000, 40}, "EPERM"},
		{"IPV6_FLOWLABEL_MGR", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IPV6, flowLabelMgr, 0x1000, sizeofFlowLabel}, "allow"},
		{"IPV6_FLOWLABEL_MGR with options", unix.SYS_SETSOCKOPT, []uint64{3, unix.SOL_IPV6, flowLabelMgr, 0x1000, sizeofFlowLabel + 1}, "EPERM"},
		{"tcp", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP), "allow"},
		{"tcp by default", unix.SYS_SOCKET, sock(unix.AF_INET6, unix.SOCK_STREAM, 0), "allow"},
		{"udp", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP), "allow"},
		{"udp by default", unix.SYS_SOCKET, sock(unix.AF_INET6, unix.SOCK_DGRAM, 0), "allow"},
		{"ping", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), "allow"},
		{"ping6", unix.SYS_SOCKET, sock(unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6), "allow"},
		{"udplite", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE), "EPROTONOSUPPORT"},
		{"mptcp", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), "EPROTONOSUPPORT"},
		{"mptcp6", unix.SYS_SOCKET, sock(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), "EPROTONOSUPPORT"},
		{"sctp", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP), "EPROTONOSUPPORT"},
		{"sctp by type", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_SEQPACKET, 0), "EPROTONOSUPPORT"},
		{"dccp by type", unix.SYS_SOCKET, sock(unix.AF_INET6, unix.SOCK_DCCP, 0), "EPROTONOSUPPORT"},
		{"old packet type", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_PACKET, 0), "EPROTONOSUPPORT"},
		{"raw", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), "EPERM"},
		{"raw tcp", unix.SYS_SOCKET, sock(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP), "EPERM"},
		{"packet", unix.SYS_SOCKET, sock(unix.AF_PACKET, unix.SOCK_DGRAM, 0), "EPERM"},
		{"vsock", unix.SYS_SOCKET, sock(unix.AF_VSOCK, unix.SOCK_STREAM, 0), "EAFNOSUPPORT"},
		{"smc", unix.SYS_SOCKET, sock(unix.AF_SMC, unix.SOCK_STREAM, 0), "EAFNOSUPPORT"},
		{"rds", unix.SYS_SOCKET, sock(unix.AF_RDS, unix.SOCK_SEQPACKET, 0), "EAFNOSUPPORT"},
		{"rxrpc", unix.SYS_SOCKET, sock(unix.AF_RXRPC, unix.SOCK_DGRAM, unix.AF_INET), "EAFNOSUPPORT"},
		{"tipc", unix.SYS_SOCKET, sock(unix.AF_TIPC, unix.SOCK_STREAM, 0), "EAFNOSUPPORT"},
		{"xdp", unix.SYS_SOCKET, sock(unix.AF_XDP, unix.SOCK_RAW, 0), "EAFNOSUPPORT"},
		{"smc by protocol", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_STREAM, 256), "EPROTONOSUPPORT"},
		{"dccp", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_DCCP), "EPROTONOSUPPORT"},
		{"l2tp", unix.SYS_SOCKET, sock(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_L2TP), "EPROTONOSUPPORT"},
		{"pppox", unix.SYS_SOCKET, sock(unix.AF_PPPOX, unix.SOCK_DGRAM, 1), "EAFNOSUPPORT"},
		{"kcm", unix.SYS_SOCKET, sock(unix.AF_KCM, unix.SOCK_DGRAM, 0), "EAFNOSUPPORT"},
		{"qipcrtr", unix.SYS_SOCKET, sock(unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0), "EAFNOSUPPORT"},
		{"bluetooth", unix.SYS_SOCKET, sock(unix.AF_BLUETOOTH, unix.SOCK_STREAM, 3), "EAFNOSUPPORT"},
		{"unix pair", unix.SYS_SOCKETPAIR, sock(unix.AF_UNIX, unix.SOCK_STREAM, 0), "allow"},
		{"tipc pair", unix.SYS_SOCKETPAIR, sock(unix.AF_TIPC, unix.SOCK_RDM, 0), "EOPNOTSUPP"},
		{"unix", unix.SYS_SOCKET, sock(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0), "allow"},
		{"netlink", unix.SYS_SOCKET, sock(unix.AF_NETLINK, unix.SOCK_RAW, 0), "allow"},
		{"crypto", unix.SYS_SOCKET, sock(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), "allow"},
	} {
		require.Equal(t, c.want, verdict(t, vm, auditArch, c.nr, c.args...), c.what)
	}
	for nr := range uint32(500) {
		require.Equal(t, "ENOSYS", verdict(t, vm, unix.AUDIT_ARCH_I386, nr), "i386 call %d", nr)
		require.Equal(t, "ENOSYS", verdict(t, vm, unix.AUDIT_ARCH_ARM, nr), "arm call %d", nr)
		require.Equal(t, "ENOSYS", verdict(t, vm, auditArch, nr|foreignNR), "x32 call %d", nr)
	}
}
