// Package nftgateway decides the connections that others make through this
// system: on a router, or for the containers behind a bridge. It needs root.
//
// An nftables rule set of its own sends every TCP connection that comes in on the
// named interfaces and goes further to this process, which learns where it was
// going, asks the engine and carries it; with Options.Transparent UDP, too. What is
// neither is refused, since nobody decided it. Connections to this system itself are left alone, and so are those
// that come from elsewhere to whom is behind the interfaces.
//
// The rules stay when this process dies: connections are refused then, and the next
// Start takes the rules over. Close removes them. While somebody has taken them away, until
// they are put back, a table that only this process can take away drops what comes in. It stays,
// too, from Linux 6.9 on, and is anybody's to take away then, as the rules are.
//
// It knows addresses only: no program, no user, no process. A filter that asks
// for one of these does not match. A block is a reset after connect() succeeded;
// a datagram is refused with ICMP.
package nftgateway

import (
	"fmt"
	"hash/crc32"
	"regexp"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/handoff"
)

// Options configure a Gateway.
type Options struct {
	// Interfaces are those that connections come in on. Required.
	Interfaces []string
	// ALE decides. Required.
	ALE *ale.Enforcer
	// Transparent uses TPROXY in the place of REDIRECT: no address is translated, UDP
	// is carried, and the rules and a route of their own mark are made.
	Transparent bool
	// Name tells gateways of one system apart: it is in the name of the table. No two have
	// an interface in common.
	// Letters, digits and underscores. Optional.
	Name string
	// Handoff returns the proxy of others at an address, nil if there is none.
	// Optional.
	Handoff handoff.Finder
	// MaxDatagramBytes is what all datagrams together may take of the memory while they wait,
	// to be decided or for a proxy; more get lost, but for 2 KiB each way of each flow. Optional: 64 MiB.
	MaxDatagramBytes int64
	// MaxDatagramFlows is how many flows of datagrams there may be at once. One host (of IPv6, a
	// network of 64 bits) has no more than are left for others. Optional: 32,768, or an eighth of the
	// descriptors that the process may have (RLIMIT_NOFILE) if that is less: a flow takes two or three.
	MaxDatagramFlows int64
	// MaxConnections is how many connections of TCP there may be at once, of one host likewise; more
	// are reset. Optional: a quarter of the descriptors: one takes two, and six while an end does not read.
	// More than half of the descriptors are an error.
	MaxConnections int64
	// Logf hears of what somebody may need to look into. Optional.
	Logf func(format string, args ...any)
	// OnBlocked hears of every connection that was refused. Optional.
	OnBlocked func(enforce.Denial)
}

// A State is what there is of a gateway in the kernel.
type State struct {
	Table       string   `json:"table"`
	Interfaces  []string `json:"interfaces"` // that what is decided comes in on: also what has them for ports
	Transparent bool     `json:"transparent"`
	Rules       bool     `json:"rules"` // all are there, and this run's
	Guard       bool     `json:"guard"` // what drops while they are not is there
}

// tableName is what the table of a gateway is called.
func (o *Options) tableName() string {
	if o.Name == "" {
		return "calloutd"
	}
	return "calloutd_" + o.Name
}

// mark is what its connections are marked and routed by where they are
// transparent: another one for each table.
func (o *Options) mark() uint32 {
	const ours, low = 0xca110000, 0xffff
	return ours | crc32.ChecksumIEEE([]byte(o.tableName()))&low
}

// maxInterfaces is as many as one message to nftables has space for, and more.
const maxInterfaces = 1000

var isName = regexp.MustCompile(`^[A-Za-z0-9_]{0,32}$`).MatchString

func (o *Options) check() error {
	switch {
	case len(o.Interfaces) == 0:
		return fmt.Errorf("nftgateway: no interface is named")
	case len(o.Interfaces) > maxInterfaces:
		return fmt.Errorf("nftgateway: %d interfaces are named: expected up to %d", len(o.Interfaces), maxInterfaces)
	case !isName(o.Name):
		return fmt.Errorf("nftgateway: the name %q: expected up to 32 letters, digits and underscores", o.Name)
	}
	for _, i := range o.Interfaces {
		if i == "" || len(i) > 15 {
			return fmt.Errorf("nftgateway: the interface %q: expected a name of up to 15 bytes", i)
		}
	}
	return nil
}
