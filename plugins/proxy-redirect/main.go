// Command proxy-redirect is a callout that sends connections to local proxies
// by destination. See README.md for its configuration.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/calloutd/calloutd/sdk/go/callout"
	"github.com/calloutd/calloutd/sdk/go/sockaddr"
)

//go:generate env GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 go build -trimpath -buildvcs=false "-ldflags=-s -w -buildid=" -buildmode=c-shared -o proxy-redirect.wasm .

func init() { callout.Register(new(policy)) }

func main() {}

type config struct {
	Rules     []ruleConfig `json:"rules"`
	Otherwise string       `json:"otherwise"`
}

type ruleConfig struct {
	Destinations []string       `json:"destinations"`
	Ports        []string       `json:"ports"`
	Proxy        netip.AddrPort `json:"proxy"`
	ProxyPID     uint32         `json:"proxy_pid"`
}

type policy struct {
	rules     []rule
	otherwise callout.Verdict
	// What the last redirect gave: decisions do not allocate.
	context, record []byte
}

type rule struct {
	nets4 []net4
	nets6 []netip.Prefix
	ports [][2]uint16
	proxy netip.AddrPort
	pid   uint32
}

// A net4 is an IPv4 prefix: the compiler makes more of numbers than of netip.
type net4 struct{ net, mask uint32 }

func toNet4(p netip.Prefix) net4 {
	mask := uint32(0)
	if p.Bits() > 0 {
		mask = ^uint32(0) << (32 - p.Bits())
	}
	return net4{number(p.Addr()) & mask, mask}
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// Configure reads the configuration, strictly.
func (p *policy) Configure(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var c config
	if err := d.Decode(&c); err == io.EOF {
		return errors.New("there is none: expected rules")
	} else if err != nil {
		return errors.New(strings.Replace(err.Error(), "json: unknown field", "the configuration has no key", 1))
	}
	switch c.Otherwise {
	case "", "permit":
		p.otherwise = callout.Permit()
	case "continue":
		p.otherwise = callout.Continue()
	case "block":
		p.otherwise = callout.Block("no rule of proxy-redirect names this destination")
	default:
		return fmt.Errorf("otherwise: %q is not permit, continue or block", c.Otherwise)
	}
	for i, rc := range c.Rules {
		r, err := compile(rc)
		if err != nil {
			return fmt.Errorf("rules[%d].%w", i, err)
		}
		p.rules = append(p.rules, r)
	}
	return nil
}

func compile(c ruleConfig) (rule, error) {
	r := rule{proxy: c.Proxy, pid: c.ProxyPID}
	if !c.Proxy.IsValid() || c.Proxy.Port() == 0 {
		return r, fmt.Errorf("proxy: an address and a port are required")
	}
	if c.ProxyPID == 0 {
		return r, fmt.Errorf("proxy_pid: a redirect to this host needs the proxy's process")
	}
	if len(c.Destinations) == 0 {
		return r, fmt.Errorf("destinations: at least one is required")
	}
	for i, s := range c.Destinations {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return r, fmt.Errorf("destinations[%d]: %q is no prefix such as 198.51.100.0/24", i, s)
		}
		if p.Addr().Is4() != c.Proxy.Addr().Is4() {
			return r, fmt.Errorf("destinations[%d]: %s is not of the IP version of the proxy %s, which a redirect keeps: write a rule with another proxy for it", i, s, c.Proxy)
		}
		if p.Addr().Is4() {
			r.nets4 = append(r.nets4, toNet4(p))
		} else {
			r.nets6 = append(r.nets6, p.Masked())
		}
	}
	for i, s := range c.Ports {
		low, high, ranged := strings.Cut(s, "-")
		if !ranged {
			high = low
		}
		a, err1 := strconv.ParseUint(low, 10, 16)
		b, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return r, fmt.Errorf("ports[%d]: %q is no port or range such as 8000-8999", i, s)
		}
		r.ports = append(r.ports, [2]uint16{uint16(a), uint16(b)})
	}
	return r, nil
}

// Classify sends a new connection to the proxy of the first rule that names its
// destination, and lets the proxy's own connection pass (RS-02).
func (p *policy) Classify(c *callout.Call) callout.Verdict {
	if c.State == callout.RedirectedBySelf || c.State == callout.PreviouslyRedirectedBySelf {
		return callout.Permit().WithReason("the proxy's own connection")
	}
	for i := range p.rules {
		r := &p.rules[i]
		if !r.names(c.Remote) {
			continue
		}
		local := c.Local
		if !local.IsValid() {
			local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
		to := c.RemoteOnLink()
		p.context = sockaddr.Append(sockaddr.Append(p.context[:0], to), local)
		p.record = sockaddr.Append(append(p.record[:0], 1, byte(i), byte(i>>8), 0), to)
		return callout.Redirect(asOf(c.Remote.Addr(), r.proxy), r.pid).WithContext(p.context).WithRecord(p.record)
	}
	return p.otherwise
}

func (r *rule) names(to netip.AddrPort) bool {
	found := len(r.ports) == 0
	for _, p := range r.ports {
		found = found || p[0] <= to.Port() && to.Port() <= p[1]
	}
	if !found {
		return false
	}
	dst := to.Addr().Unmap()
	if dst.Is4() {
		a := number(dst)
		for _, n := range r.nets4 {
			if a&n.mask == n.net {
				return true
			}
		}
		return false
	}
	for _, p := range r.nets6 {
		if p.Contains(dst) {
			return true
		}
	}
	return false
}

// asOf gives the proxy's address the form of the destination, which has its IP
// version: of one that is v4-mapped too.
func asOf(dst netip.Addr, proxy netip.AddrPort) netip.AddrPort {
	if dst.Is4In6() && proxy.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom16(proxy.Addr().As16()), proxy.Port())
	}
	return proxy
}
