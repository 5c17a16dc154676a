//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/internal/netspace"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

const nobodyID = 65534

func init() {
	// subflows: connect by MPTCP as nobody, and say how many more connections the kernel
	// has made for that, as soon as there is one or the other side has closed.
	bypasses["subflows"] = func(to netip.AddrPort) string {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, nobodyID, nobodyID, nobodyID); e != 0 {
			return said(e)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		if err != nil {
			return said(err)
		}
		if err := connectTo(fd, to); err != nil {
			return said(err)
		}
		_, _ = unix.Write(fd, []byte("x")) // Until something comes back no other is made.
		for b, end := make([]byte, 1), time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			const infoOfMPTCP = 1 // MPTCP_INFO
			info := [1]byte{}     // of struct mptcp_info: mptcpi_subflows
			size := uint32(len(info))
			if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_MPTCP, infoOfMPTCP, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
				return said(e)
			}
			n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			if info[0] > 0 || err == nil && n == 0 {
				return fmt.Sprint(info[0])
			}
		}
		return "in a minute there was none, and the other side has not closed"
	}
}

// manage asks the path manager of MPTCP for something, in the thread's network namespace.
func manage(t *testing.T, command uint8, attributes ...*nl.RtAttr) {
	family, err := netlink.GenlFamilyGet("mptcp_pm")
	require.NoError(t, err)
	r := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	r.AddData(&nl.Genlmsg{Command: command, Version: 1})
	for _, a := range attributes {
		r.AddData(a)
	}
	_, err = r.Execute(unix.NETLINK_GENERIC, 0)
	require.NoError(t, err)
}

// limits permits as many addresses of the other side, and connections for them.
func limits(t *testing.T) {
	const setLimits, addresses, subflows = 5, 2, 3
	manage(t, setLimits, nl.NewRtAttr(addresses, nl.Uint32Attr(2)), nl.NewRtAttr(subflows, nl.Uint32Attr(2)))
}

// announce makes this side tell the other one of an address.
func announce(t *testing.T, a netip.Addr) {
	const addAddress, address, family, v4Address, flags, signal = 1, 1, 1, 3, 6, 1
	nested := nl.NewRtAttr(address|int(nl.NLA_F_NESTED), nil)
	nested.AddRtAttr(family, binary.NativeEndian.AppendUint16(nil, unix.AF_INET))
	nested.AddRtAttr(v4Address, a.AsSlice())
	nested.AddRtAttr(flags, nl.Uint32Attr(signal))
	manage(t, addAddress, nested)
}

// A peer of MPTCP that has two addresses: it tells of the second one.
type peer struct {
	addresses [2]netip.Addr
	enough    chan struct{} // closes what it has accepted
}

// wire connects the helper's network namespace with one of the peer's own.
func (p *peer) wire(t *testing.T, h *helper) {
	its, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid))
	require.NoError(t, err)
	defer its.Close()
	up := func(name string, addresses ...netip.Addr) {
		l, err := netlink.LinkByName(name)
		require.NoError(t, err)
		for _, a := range addresses {
			require.NoError(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
		}
		require.NoError(t, netlink.LinkSetUp(l))
	}
	onOtherThread(func() {
		require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
		require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "theirs"}, PeerName: "ours"}))
		ours, err := netlink.LinkByName("ours")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetNsFd(ours, int(its.Fd())))
		up("theirs", p.addresses[:]...)
		limits(t)
		announce(t, p.addresses[1])
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(true)
		l, err := lc.Listen(t.Context(), "tcp4", "0.0.0.0:4242")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		go says(l, "x", func(c *net.TCPConn) {
			_, _ = c.Write([]byte("x"))
			<-p.enough
		})
	})
	require.NoError(t, netspace.Within(int(its.Fd()), func() error {
		up("ours", p.addresses[0].Prev())
		limits(t)
		return nil
	}))
}

// Of a connection of MPTCP the kernel makes more, to addresses that the other side tells,
// on threads of its own: whose they are cannot be seen. They are decided by address, and
// refused where the policy wants to know more.
func TestBypassSubflows(t *testing.T) {
	first, second := netip.MustParseAddr("198.18.7.2"), netip.MustParseAddr("198.18.7.3")
	try := func(s *site, until func() bool) string {
		p := &peer{[2]netip.Addr{first, second}, make(chan struct{})}
		h := s.start(t, unix.CLONE_NEWNET, "up/", "stdin/", "subflows/"+netip.AddrPortFrom(first, 4242).String())
		require.Equal(t, "up", h.line())
		p.wire(t, h)
		if until != nil {
			go func() {
				defer close(p.enough)
				for end := time.Now().Add(time.Minute); !until() && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
			}()
		} else {
			defer close(p.enough)
		}
		return h.end()[1]
	}
	toSecond := condition(fwpm.ConditionIPRemoteAddress, fwp.U32(binary.BigEndian.Uint32(second.AsSlice())))
	byUser := []fwpm.Condition{toSecond, condition(fwpm.ConditionALEUserID, fwp.Allow(fwp.UserSID(nobodyID)))}
	native := newSite(t, new(fwpm.Policy), nil)
	require.Equal(t, "1", try(native, nil), "the way exists")
	for name, c := range map[string]struct {
		conditions []fwpm.Condition
		why        string
	}{
		"address": {[]fwpm.Condition{toSecond}, `by filter 3 "f" (ARB-01)`},
		"user":    {byUser, "the kernel makes it for a connection of MPTCP"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, c.conditions...)}}, nil)
			defer s.attach(t).Close()
			told := func() bool { d, _ := s.told(); return strings.Contains(strings.Join(d, "\n"), c.why) }
			require.Equal(t, "0", try(s, told))
			require.True(t, told())
		})
	}
	s := newSite(t, &fwpm.Policy{Filters: []fwpm.Filter{filter(3, authConnect, fwp.ActionBlock, port(25))}}, nil)
	defer s.attach(t).Close()
	require.Equal(t, "1", try(s, nil), "where the policy permits it")
}
