package dnsnames

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

var web = netip.MustParseAddr("198.51.100.7")

// A clock stands still unless it is moved.
type clock struct{ now time.Time }

func newNames() (*Names, *clock) {
	c := &clock{time.Unix(1_000_000, 0)}
	return &Names{Now: func() time.Time { return c.now }}, c
}

func TestNamesLiveAsLongAsTheirAnswer(t *testing.T) {
	for _, c := range []struct{ ttl, lives time.Duration }{
		{0, minLife}, // A program goes on using what it got.
		{10 * time.Minute, 10 * time.Minute},
		{1 << 31 * time.Second, maxLife}, // Nobody else decides that it is for ever.
	} {
		n, now := newNames()
		n.Learn("app.example", []netip.Addr{web}, c.ttl)
		now.now = now.now.Add(c.lives - 1)
		require.Equal(t, "app.example", n.Name(web))
		now.now = now.now.Add(1)
		require.Empty(t, n.Name(web))
		require.Empty(t, n.Append(web, nil))
	}
}

func TestNewestNameCounts(t *testing.T) {
	n, _ := newNames()
	require.Empty(t, n.Name(web))
	for _, name := range []string{"a.example", "b.example", "a.example"} {
		n.Learn(name, []netip.Addr{netip.AddrFrom16(web.As16())}, time.Hour) // v4-mapped is IPv4.
		require.Equal(t, name, n.Name(web))
	}
	n.Learn("", []netip.Addr{web}, time.Hour)
	require.Equal(t, "a.example\x00b.example\x00", string(n.Append(web, nil)))
}

// A name that is over takes no place of one that is still good.
func TestNamesThatAreOverGo(t *testing.T) {
	n, now := newNames()
	n.Learn("a.example", []netip.Addr{web}, maxLife)
	for i := range maxNames - 1 {
		n.Learn(fmt.Sprintf("%d.example", i), []netip.Addr{web}, minLife)
	}
	now.now = now.now.Add(minLife)
	n.Learn("b.example", []netip.Addr{web}, minLife)
	require.Equal(t, "b.example\x00a.example\x00", string(n.Append(web, nil)))
}

func TestNamesAreBounded(t *testing.T) {
	n, _ := newNames()
	for i := range 2 * maxNames {
		n.Learn(fmt.Sprintf("%d.example", i), []netip.Addr{web}, time.Hour)
	}
	names, _ := n.byAddr.Load(web)
	require.Len(t, names, maxNames)
	addr := netip.MustParseAddr("1.0.0.0")
	for range maxAddresses + 10 {
		n.Learn("x.example", []netip.Addr{addr}, time.Hour)
		addr = addr.Next()
	}
	require.Len(t, n.order, maxAddresses)
	require.Empty(t, n.Name(web), "the oldest goes first")
	require.Equal(t, "x.example", n.Name(addr.Prev()))
}

// DNS rebinding: a name of the attacker's is resolved again, to an address of this
// host or of its network. A filter that permits by name must not permit that.
func TestRebinding(t *testing.T) {
	n, _ := newNames()
	n.Learn("evil.example", []netip.Addr{web}, 0)
	for _, inside := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1",
		"fe80::1", "fd00::1", "fec0::1", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::1"} {
		a := netip.MustParseAddr(inside)
		n.Learn("evil.example", []netip.Addr{a}, 0)
		require.Empty(t, n.Name(a), inside)
	}
	require.Equal(t, "evil.example", n.Name(web), "what it was called before it is called yet")
	translated := netip.MustParseAddr("64:ff9b::c633:6407")
	n.Learn("evil.example", []netip.Addr{translated}, 0)
	require.Equal(t, "evil.example", n.Name(translated), "it is somebody's whom all can reach")
}

func message(t testing.TB, question string, kind uint16, records ...string) (q, m *dns.Msg) {
	q = new(dns.Msg).SetQuestion(question, kind)
	m = new(dns.Msg).SetReply(q)
	for _, r := range records {
		rr, err := dns.NewRR(r)
		require.NoError(t, err)
		m.Answer = append(m.Answer, rr)
	}
	return q, m
}

// aliases are records of so many aliases, and of the address of the last one.
func aliases(n int) []string {
	name, records := "app.example.", []string{}
	for range n {
		records = append(records, name+" 60 IN CNAME x"+name)
		name = "x" + name
	}
	return append(records, name+" 60 IN A 198.51.100.7")
}

// An answer speaks for the name that was asked for, and for no other.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		records []string
		change  func(q, m *dns.Msg)
		addrs   []string
		ttl     time.Duration
	}{
		"address":                     {records: []string{"App.example. 60 IN A 198.51.100.7"}, addrs: []string{"198.51.100.7"}, ttl: time.Minute},
		"several":                     {records: []string{"app.example. 60 IN A 198.51.100.7", "app.example. 30 IN A 198.51.100.8"}, addrs: []string{"198.51.100.7", "198.51.100.8"}, ttl: 30 * time.Second},
		"alias":                       {records: []string{"app.example. 9 IN CNAME cdn.example.", "cdn.example. 60 IN A 198.51.100.7"}, addrs: []string{"198.51.100.7"}, ttl: 9 * time.Second},
		"alias, the wrong way":        {records: []string{"cdn.example. 60 IN A 198.51.100.7", "app.example. 9 IN CNAME cdn.example."}, addrs: []string{"198.51.100.7"}, ttl: 9 * time.Second},
		"a name not asked for":        {records: []string{"bank.example. 60 IN A 198.51.100.7"}},
		"alias to nothing":            {records: []string{"app.example. 9 IN CNAME cdn.example.", "bank.example. 60 IN A 198.51.100.7"}},
		"alias of itself":             {records: []string{"app.example. 9 IN CNAME app.example."}},
		"no success":                  {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(_, m *dns.Msg) { m.Rcode = dns.RcodeNameError }},
		"another query":               {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(_, m *dns.Msg) { m.Id++ }},
		"another question":            {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(_, m *dns.Msg) { m.Question[0].Name = "bank.example." }},
		"another kind":                {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(_, m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX }},
		"no answer":                   {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(_, m *dns.Msg) { m.Response = false }},
		"a name that is no host":      {records: []string{"a\\000b. 60 IN A 198.51.100.7"}, change: func(q, m *dns.Msg) { q.Question[0].Name, m.Question[0].Name = "a\\000b.", "a\\000b." }},
		"the root":                    {records: []string{". 60 IN A 198.51.100.7"}, change: func(q, m *dns.Msg) { q.Question[0].Name, m.Question[0].Name = ".", "." }},
		"a question of another class": {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(q, m *dns.Msg) { q.Question[0].Qclass, m.Question[0].Qclass = dns.ClassCHAOS, dns.ClassCHAOS }},
		"no question":                 {records: []string{"app.example. 60 IN A 198.51.100.7"}, change: func(_, m *dns.Msg) { m.Question = nil }},
		"as many aliases as may be":   {records: aliases(maxAliases - 1), addrs: []string{"198.51.100.7"}, ttl: time.Minute},
		"one alias more":              {records: aliases(maxAliases)},
		"another class":               {records: []string{"app.example. 60 CH A 198.51.100.7"}},
	} {
		q, m := message(t, "app.example.", dns.TypeA, c.records...)
		if c.change != nil {
			c.change(q, m)
		}
		a, ok := read(q, m)
		require.Equal(t, len(c.addrs) > 0, ok, name)
		if !ok {
			continue
		}
		var addrs []string
		for _, addr := range a.addrs {
			addrs = append(addrs, addr.String())
		}
		require.Equal(t, c.addrs, addrs, name)
		require.Equal(t, c.ttl, a.ttl, name)
		require.Equal(t, "app.example", a.name)
	}
	q, m := message(t, "app.example.", dns.TypeAAAA, "app.example. 60 IN AAAA 2001:db8::7")
	a, ok := read(q, m)
	require.True(t, ok)
	require.Equal(t, []netip.Addr{netip.MustParseAddr("2001:db8::7")}, a.addrs)
}

// Whatever a resolver answers, what is learned is a host's name that was asked for.
func FuzzAnswer(f *testing.F) {
	for _, records := range [][]string{{"app.example. 60 IN A 198.51.100.7"}, {"app.example. 9 IN CNAME cdn.example.", "cdn.example. 60 IN AAAA 2001:db8::7"}} {
		_, m := message(f, "app.example.", dns.TypeA, records...)
		m.Id = 0
		b, err := m.Pack()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg).SetQuestion("app.example.", dns.TypeA)
		q.Id = 0
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		a, ok := read(q, m)
		if !ok {
			return
		}
		require.Equal(t, "app.example", a.name)
		require.NotEmpty(t, a.addrs)
		require.GreaterOrEqual(t, a.ttl, time.Duration(0))
		require.LessOrEqual(t, a.ttl, maxLife)
	})
}
