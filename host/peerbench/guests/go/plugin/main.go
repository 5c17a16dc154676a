//go:build wasip1

// The guest of knqyf263/go-plugin.
package main

import (
	"context"
	"encoding/binary"
	"strings"

	"github.com/calloutd/calloutd/host/peerbench/plugin"
)

type policy struct {
	networks  []*plugin.Network
	port, pid uint32
}

var le = binary.LittleEndian

func (p *policy) Configure(_ context.Context, c *plugin.Config) (*plugin.Empty, error) {
	p.networks, p.port, p.pid = c.Networks, c.Port, c.Pid
	return new(plugin.Empty), nil
}

func (p *policy) listed(address uint32) bool {
	for _, n := range p.networks {
		if address&n.Mask == n.Address {
			return true
		}
	}
	return false
}

func (p *policy) Classify(_ context.Context, q *plugin.Request) (*plugin.Verdict, error) {
	if q.Protocol != 6 || q.Port != 443 || !strings.HasPrefix(q.App, "/usr/bin/") || p.listed(binary.BigEndian.Uint32(q.Remote[12:])) {
		return new(plugin.Verdict), nil
	}
	b := append(make([]byte, 0, 48), "SPL1"...)
	b = append(b, q.Remote...)
	b = le.AppendUint16(b, uint16(q.Port))
	b = append(b, byte(q.Protocol), 4)
	b = le.AppendUint32(b, q.Pid)
	b = append(b, make([]byte, 12)...)
	b = le.AppendUint64(b, q.Connection)
	return &plugin.Verdict{Redirect: true, To: []byte{127, 0, 0, 1}, Port: p.port, Pid: p.pid, Record: b}, nil
}

func init() { plugin.RegisterCallout(new(policy)) }

func main() {}
