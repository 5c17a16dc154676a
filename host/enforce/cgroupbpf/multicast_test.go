//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

func init() {
	// many: send to a group from one socket, answer as one of the group, and say what came there
	// and what came back. The group is of loopback.
	bypasses["many"] = func(to netip.AddrPort) string {
		runtime.LockOSThread()
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.RouteReplace(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(224, 0, 0, 0), Mask: net.CIDRMask(4, 32)}})
		}
		if err != nil {
			return err.Error()
		}
		group, own := socket(unix.AF_INET, unix.SOCK_DGRAM, 0), socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		_ = unix.Bind(group, sockaddr(netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port())))
		if err := unix.SetsockoptIPMreq(group, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: to.Addr().As4(), Interface: [4]byte{127, 0, 0, 1}}); err != nil {
			return err.Error()
		}
		hear := func(fd int, patience time.Duration) (string, unix.Sockaddr) {
			wait := unix.NsecToTimeval(patience.Nanoseconds())
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
			b := make([]byte, 16)
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				return said(err), nil
			}
			return string(b[:n]), from
		}
		ask := func() error { return unix.Sendto(own, []byte("question"), 0, sockaddr(to)) }
		for err, end := ask(), time.Now().Add(time.Minute); err != nil; err = ask() { // Calloutd may not listen here yet.
			if err != unix.EACCES || time.Now().After(end) {
				return said(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		question, from := hear(group, time.Minute)
		if from == nil {
			return question
		}
		if err := unix.Sendto(group, []byte("answer"), 0, from); err != nil {
			return said(err)
		}
		answer, _ := hear(own, 2*time.Second)
		return fmt.Sprint(question, " ", answer)
	}
}

// What is sent to many arrives. Where a callout decides it the answers, which come from others
// than it was sent to, do not.
func TestSentToMany(t *testing.T) {
	const group = "many/239.1.2.3:5353"
	for name, of := range map[string]struct {
		filters []fwpm.Filter
		want    string
	}{
		"permitted by a filter": {nil, "question answer"},
		"permitted by a callout": {[]fwpm.Filter{{ID: 1, Name: "group", Layer: fwpm.LayerALEConnectRedirectV4, Action: fwp.ActionCalloutUnknown, Callout: "c",
			Conditions: []fwpm.Condition{port(5353)}}}, "question EAGAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			s := permitting(t)
			s.opts.Policy = &fwpm.Policy{Callouts: []fwpm.Callout{{ID: "c"}}, Filters: of.filters}
			require.NoError(t, s.engine.Update(func(p *fwpm.Policy) error { *p = *s.opts.Policy.Clone(); return nil }))
			defer s.attach(t).Close()
			require.Equal(t, []string{"up", of.want}, s.start(t, unix.CLONE_NEWNET, "up/", group).end())
		})
	}
}
