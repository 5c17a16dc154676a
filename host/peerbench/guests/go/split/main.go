//go:build wasip1

// The decision in Go, with the SDK.
package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/sdk/go/callout"
)

type network struct{ address, mask uint32 }

type policy struct {
	networks []network
	proxy    netip.AddrPort
	pid      uint32
	record   [48]byte
}

var le = binary.LittleEndian

func (p *policy) Configure(config []byte) error {
	if len(config) < 8 {
		return errors.New("the configuration is not: port, process, networks")
	}
	p.proxy = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), le.Uint16(config))
	p.pid = le.Uint32(config[4:])
	for b := config[8:]; len(b) >= 8; b = b[8:] {
		p.networks = append(p.networks, network{le.Uint32(b), le.Uint32(b[4:])})
	}
	return nil
}

func (p *policy) listed(a netip.Addr) bool {
	v4 := a.As4()
	address := binary.BigEndian.Uint32(v4[:])
	for i := range p.networks {
		if n := &p.networks[i]; address&n.mask == n.address {
			return true
		}
	}
	return false
}

func (p *policy) remember(c *callout.Call) []byte {
	b := append(p.record[:0], "SPL1"...)
	a := c.Remote.Addr().As16()
	b = append(b, a[:]...)
	b = le.AppendUint16(b, c.Remote.Port())
	b = append(b, c.Protocol, c.IPVersion)
	b = le.AppendUint32(b, c.PID)
	b = append(b, make([]byte, 12)...)
	return le.AppendUint64(b, c.Connection)
}

func (p *policy) Classify(c *callout.Call) callout.Verdict {
	if c.Protocol != 6 || c.IPVersion != 4 || c.Remote.Port() != 443 || !strings.HasPrefix(c.App, "/usr/bin/") || p.listed(c.Remote.Addr()) {
		return callout.Permit()
	}
	return callout.Redirect(p.proxy, p.pid).WithRecord(p.remember(c))
}

func init() { callout.Register(new(policy)) }

func main() {}
