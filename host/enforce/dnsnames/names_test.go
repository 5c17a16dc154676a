package dnsnames

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

var (
	web    = netip.MustParseAddr("198.51.100.7")
	theirs = netip.MustParseAddrPort("192.0.2.53:53")
	here   netip.Addr // the programs of this host
)

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
		n.Learn(here, theirs, "app.example", []netip.Addr{web}, c.ttl)
		now.now = now.now.Add(c.lives - 1)
		require.Equal(t, "app.example", n.Name(here, web))
		now.now = now.now.Add(1)
		require.Empty(t, n.Name(here, web))
		require.Empty(t, n.Append(here, web, nil))
	}
}

func TestNewestNameCounts(t *testing.T) {
	n, _ := newNames()
	require.Empty(t, n.Name(here, web))
	for _, name := range []string{"a.example", "b.example", "a.example"} {
		n.Learn(here, theirs, name, []netip.Addr{netip.AddrFrom16(web.As16())}, time.Hour) // v4-mapped is IPv4.
		require.Equal(t, name, n.Name(here, web))
	}
	n.Learn(here, theirs, "", []netip.Addr{web}, time.Hour)
	require.Equal(t, "a.example\x00b.example\x00", string(n.Append(here, web, nil)))
}

// A name that is over takes no place of one that is still good.
func TestNamesThatAreOverGo(t *testing.T) {
	n, now := newNames()
	n.Learn(here, theirs, "a.example", []netip.Addr{web}, maxLife)
	for i := range maxNames - 1 {
		n.Learn(here, theirs, fmt.Sprintf("%d.example", i), []netip.Addr{web}, minLife)
	}
	now.now = now.now.Add(minLife)
	n.Learn(here, theirs, "b.example", []netip.Addr{web}, minLife)
	require.Equal(t, "b.example\x00a.example\x00", string(n.Append(here, web, nil)))
}

func TestAnAddressHasSoManyNames(t *testing.T) {
	n, _ := newNames()
	for i := range maxNames {
		n.Learn(here, theirs, fmt.Sprintf("%d.example", i), []netip.Addr{web}, time.Hour)
	}
	require.Len(t, n.Of(here, web).Names, maxNames)
	require.False(t, n.Of(here, web).Forgotten)
	require.Equal(t, maxTold, bytes.Count(n.Append(here, web, nil), []byte{0}))
	n.Learn(here, theirs, "one more", []netip.Addr{web}, time.Hour)
	require.Equal(t, "one more", n.Of(here, web).Names[0])
	require.Len(t, n.Of(here, web).Names, maxNames)
	require.True(t, n.Of(here, web).Forgotten)
}

// Whatever is resolved and by how many, what is remembered takes no more of the memory than
// it may.
func TestNamesAreBounded(t *testing.T) {
	const most = 8 << 20
	long := strings.Repeat(strings.Repeat("a", 59)+".", 4)
	one := func(int) netip.Addr { return here }
	many := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for name, c := range map[string]struct {
		client func(i int) netip.Addr
		names  func(i int) []string
		addrs  int // of each name
		asks   int
	}{
		"an address of a short name":            {one, func(i int) []string { return []string{fmt.Sprint(i)} }, 1, 15000},
		"an address of a usual name":            {one, func(i int) []string { return []string{fmt.Sprint("www", i, ".example.com")} }, 1, 15000},
		"an address of a long name":             {one, func(i int) []string { return []string{fmt.Sprint(long, i)} }, 1, 15000},
		"so many addresses of a name":           {one, func(i int) []string { return []string{fmt.Sprint(i)} }, 1000, 30},
		"an address of so many names":           {one, func(i int) []string { return numbered(long, i, maxNames) }, 1, 120},
		"clients that ask once":                 {many, func(i int) []string { return []string{fmt.Sprint("www", i, ".example.com")} }, 1, 15000},
		"clients that ask 20 times":             {func(i int) netip.Addr { return many(i / 20) }, func(i int) []string { return []string{fmt.Sprint(i)} }, 1, 15000},
		"clients with addresses of many names":  {func(i int) netip.Addr { return many(i / 9) }, func(i int) []string { return numbered("www", i, 20) }, 1, 6000},
		"one that has all, and many that begin": {func(i int) netip.Addr { return many(max(0, i-15_000)) }, func(i int) []string { return []string{fmt.Sprint(i)} }, 1, 18000},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := newNames()
			n.MaxBytes = most
			before := used()
			a := netip.MustParseAddr("2400::")
			peak := int64(0)
			for i := range c.asks {
				var addrs []netip.Addr
				for range c.addrs {
					a = a.Next()
					addrs = append(addrs, a)
				}
				for _, name := range c.names(i) {
					n.Learn(c.client(i), theirs, name, addrs, time.Hour)
				}
				peak = max(peak, n.bytes+n.anybody.bytes)
			}
			took := used() - before
			t.Logf("%+v take %d bytes", n.Figures(), took)
			require.LessOrEqual(t, took, int64(most))
			require.LessOrEqual(t, peak, int64(most))
			require.Greater(t, took, n.Figures().Bytes/2, "or it is counted as more than it is")
			require.NotZero(t, n.Figures().Forgotten+n.Figures().Crowded)
			runtime.KeepAlive(n)
		})
	}
}

func numbered(name string, i, n int) (all []string) {
	for k := range n {
		all = append(all, fmt.Sprint(name, k, ".", i))
	}
	return all
}

// used is what of the heap is in use.
func used() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Where there is no more room those that are over go first, then those of the address that
// was not asked for the longest.
func TestWhoIsForgottenFirst(t *testing.T) {
	n, now := newNames()
	n.MaxBytes = 4 * (addressBytes + nameBytes + 1) * 4 // A quarter is anybody's.
	at := func(i int) []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{1, 0, 0, byte(i)})} }
	known := func() (s string) {
		for i := range 10 {
			s += n.Name(everybody, at(i)[0])
		}
		return s
	}
	n.Learn(here, theirs, "0", at(0), time.Hour)
	n.Learn(here, theirs, "1", at(1), time.Hour)
	n.Learn(here, theirs, "2", at(2), minLife)
	n.Learn(here, theirs, "0", at(0), time.Hour) // Again.
	n.Learn(here, theirs, "3", at(3), time.Hour)
	require.Equal(t, "0123", known())
	n.Learn(here, theirs, "4", at(4), time.Hour)
	require.Equal(t, "0234", known(), "the oldest")
	now.now = now.now.Add(minLife)
	n.Learn(here, theirs, "5", at(5), time.Hour)
	require.Equal(t, "0345", known(), "that is over")
	n.Learn(here, theirs, "6", at(6), time.Hour)
	require.Equal(t, "3456", known())
}

// What a resolver has said that is not trusted any more is forgotten, and it says nothing more.
func TestNamesOfAResolverThatIsNotTrustedGo(t *testing.T) {
	n, _ := newNames()
	other := netip.MustParseAddrPort("192.0.2.54:53")
	next := []netip.Addr{web.Next()}
	n.Learn(here, theirs, "a.example", []netip.Addr{web}, time.Hour)
	n.Learn(here, other, "b.example", []netip.Addr{web}, time.Hour)
	n.Learn(here, other, "c.example", next, time.Hour)
	n.Trust(func(r netip.AddrPort) bool { return r == theirs })
	require.Equal(t, "a.example\x00", string(n.Append(here, web, nil)))
	require.Empty(t, n.Name(here, next[0]))
	n.Learn(here, other, "d.example", next, time.Hour)
	require.Empty(t, n.Name(here, next[0]))
	n.Trust(func(r netip.AddrPort) bool { return r == other })
	require.Empty(t, n.Name(here, web))
	require.Equal(t, Figures{}, n.Figures())
	n.Learn(here, other, "d.example", next, time.Hour)
	require.Equal(t, "d.example", n.Name(here, next[0]))
}

// DNS rebinding: a name of the attacker's is resolved again, to an address of this
// host or of its network. A filter that permits by name must not permit that.
func TestRebinding(t *testing.T) {
	n, _ := newNames()
	n.Learn(here, theirs, "evil.example", []netip.Addr{web}, 0)
	for _, inside := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1",
		"fe80::1", "fd00::1", "fec0::1", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::1"} {
		a := netip.MustParseAddr(inside)
		n.Learn(here, theirs, "evil.example", []netip.Addr{a}, 0)
		require.Empty(t, n.Name(here, a), inside)
	}
	require.Equal(t, "evil.example", n.Name(here, web), "what it was called before it is called yet")
	translated := netip.MustParseAddr("64:ff9b::c633:6407")
	n.Learn(here, theirs, "evil.example", []netip.Addr{translated}, 0)
	require.Equal(t, "evil.example", n.Name(here, translated), "it is somebody's whom all can reach")
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
