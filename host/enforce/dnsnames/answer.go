package dnsnames

import (
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// An answer is what a message says about the name that was asked for.
type answer struct {
	name  string
	addrs []netip.Addr
	ttl   time.Duration
}

const maxAliases = 16

// read takes the addresses of the name that was asked for out of a message, which
// may call it by aliases. Records of other names say nothing about it.
func read(query, m *dns.Msg) (a answer, ok bool) {
	if query.Opcode != dns.OpcodeQuery || m.Opcode != dns.OpcodeQuery || !m.Response || m.Id != query.Id || m.Rcode != dns.RcodeSuccess || len(query.Question) != 1 || len(m.Question) != 1 {
		return a, false
	}
	q := query.Question[0]
	if q.Qclass != dns.ClassINET || m.Question[0].Qtype != q.Qtype || !strings.EqualFold(m.Question[0].Name, q.Name) {
		return a, false
	}
	a.name, a.ttl = strings.ToLower(strings.TrimSuffix(q.Name, ".")), maxLife
	owner := q.Name
	for range maxAliases {
		alias := ""
		for _, rr := range m.Answer {
			if h := rr.Header(); !strings.EqualFold(h.Name, owner) || h.Class != dns.ClassINET {
				continue
			}
			switch rr := rr.(type) {
			case *dns.CNAME:
				alias = rr.Target
				a.lives(rr.Hdr.Ttl)
			case *dns.A:
				a.add(rr.A, rr.Hdr.Ttl)
			case *dns.AAAA:
				a.add(rr.AAAA, rr.Hdr.Ttl)
			}
		}
		if alias == "" {
			break
		}
		owner = alias
	}
	return a, len(a.addrs) > 0 && printable(a.name)
}

func (a *answer) add(ip []byte, ttl uint32) {
	if addr, ok := netip.AddrFromSlice(ip); ok {
		a.addrs = append(a.addrs, addr.Unmap())
		a.lives(ttl)
	}
}

func (a *answer) lives(ttl uint32) { a.ttl = min(a.ttl, time.Duration(ttl)*time.Second) }

// printable reports whether a name is one of a host, and not bytes that a label may
// also have.
func printable(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}
