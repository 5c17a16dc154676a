// Package sample is the decision that benchmarks compare, that of the SDKs'
// example split: TCP to port 443 of a program under /usr/bin, to none of 64
// networks, is redirected with a record of 48 bytes; all else is permitted.
package sample

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// Program is what the path of a program begins with that is redirected.
const Program = "/usr/bin/"

// PID is the proxy's process.
const PID = 77

// Proxy is where to.
var Proxy = netip.MustParseAddrPort("127.0.0.1:8443")

// Networks are 64, of /16 to /24.
func Networks() (out []netip.Prefix) {
	for i := range 64 {
		a := netip.AddrFrom4([4]byte{byte(20 + i), byte(i * 3), byte(i), 0})
		out = append(out, netip.PrefixFrom(a, 16+i%9).Masked())
	}
	return out
}

// Config is what the SDKs' example is configured with.
func Config() []byte {
	b := fmt.Appendf(nil, "proxy %d %d\n", Proxy.Port(), PID)
	for _, p := range Networks() {
		b = fmt.Appendf(b, "%v\n", p)
	}
	return b
}

// Redirected is how many of Calls are redirected.
const Redirected = 4

// Calls are eight connections: four are redirected, one is to the 41st network,
// one is of another program, one UDP and one to another port.
func Calls() (out []*fwps.Call) {
	for i, c := range []struct{ to, app string }{
		{"93.184.216.34:443", "/usr/bin/curl"}, {"140.82.121.3:443", "/usr/bin/git"},
		{netip.AddrPortFrom(Networks()[40].Addr().Next(), 443).String(), "/usr/bin/curl"},
		{"151.101.1.69:443", "/usr/bin/python3.11"}, {"151.101.1.69:443", "/opt/google/chrome/chrome"},
		{"8.8.8.8:53", "/usr/bin/dig"}, {"1.1.1.1:80", "/usr/bin/curl"}, {"203.0.113.9:443", "/usr/bin/firefox-esr"},
	} {
		remote := netip.MustParseAddrPort(c.to)
		protocol := fwps.ProtocolTCP
		if remote.Port() == 53 {
			protocol = fwps.ProtocolUDP
		}
		out = append(out, &fwps.Call{
			In: &fwps.Incoming{Layer: fwpm.LayerALEConnectRedirectV4, Protocol: protocol, Remote: remote, AppID: c.app,
				ProcessID: 4242, UserID: 1000, UserKnown: true, EndpointID: uint64(i + 1)},
			Filter: &fwpm.Filter{ID: 7}, Connect: &fwps.ConnectRequest{Remote: remote}})
	}
	return out
}

// A List is the networks as the closure looks through them: one after the other,
// as the guests do.
type List struct{ nets, masks []uint32 }

// NewList returns that of Networks.
func NewList() *List {
	l := new(List)
	for _, p := range Networks() {
		a := p.Addr().As4()
		l.nets = append(l.nets, binary.BigEndian.Uint32(a[:]))
		l.masks = append(l.masks, ^uint32(0)<<(32-p.Bits()))
	}
	return l
}

// Has reports whether an IPv4 address is on it.
func (l *List) Has(address netip.Addr) bool {
	v4 := address.As4()
	a := binary.BigEndian.Uint32(v4[:])
	for i := range l.nets {
		if a&l.masks[i] == l.nets[i] {
			return true
		}
	}
	return false
}

// Redirect answers with the redirect and what to remember.
func Redirect(c *fwps.Call, v *fwps.Verdict) {
	to := c.Connect.Remote
	v.Redirect, v.To, v.TargetPID = true, Proxy, PID
	b := append(v.Record[:0], "SPL1"...)
	a := to.Addr().As16()
	b = append(b, a[:]...)
	b = binary.LittleEndian.AppendUint16(b, to.Port())
	b = append(b, c.In.Protocol, 4)
	b = binary.LittleEndian.AppendUint32(b, c.In.ProcessID)
	b = append(b, make([]byte, 12)...)
	v.Record = binary.LittleEndian.AppendUint64(b, c.In.EndpointID)
}

// Native is the decision as a closure in Go.
func Native() fwps.CalloutFunc {
	list := NewList()
	return func(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
		to := c.Connect.Remote
		v.Action = fwp.ActionPermit
		if c.In.Protocol == fwps.ProtocolTCP && to.Port() == 443 && strings.HasPrefix(c.In.AppID, Program) && !list.Has(to.Addr()) {
			Redirect(c, v)
		}
		return nil
	}
}
