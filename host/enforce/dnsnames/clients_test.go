package dnsnames

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/clockset"
	"github.com/calloutd/calloutd/host/redirect"
)

var (
	victim   = netip.MustParseAddr("192.168.1.2")
	attacker = netip.MustParseAddr("192.168.1.3")
)

// heard are the warnings of n from now on.
func heard(n *Names) *[]string {
	warnings := new([]string)
	n.Logf = func(format string, args ...any) { *warnings = append(*warnings, fmt.Sprintf(format, args...)) }
	return warnings
}

// Who has an address be called something by a name of his own changes nothing for another
// who has asked, and only what anybody has asked for counts for who has not.
func TestNamesAreOfWhoAsked(t *testing.T) {
	n, now := newNames()
	n.Learn(victim, theirs, "app.example", []netip.Addr{web}, 2*minLife)
	n.Learn(attacker, theirs, "evil.example", []netip.Addr{web}, time.Hour)
	require.Equal(t, []string{"app.example"}, n.Of(victim, web).Names)
	require.Equal(t, []string{"evil.example"}, n.Of(attacker, web).Names)
	for _, other := range []netip.Addr{here, netip.MustParseAddr("2001:db8::2")} {
		require.Equal(t, []string{"evil.example", "app.example"}, n.Of(other, web).Names)
	}
	now.now = now.now.Add(2 * minLife)
	require.Equal(t, []string{"evil.example"}, n.Of(victim, web).Names, "his own are over")
}

// Who asks without end forgets his own names only.
func TestAClientForgetsItsOwnNames(t *testing.T) {
	n, _ := newNames()
	n.MaxBytes = 1 << 20
	warnings := heard(n)
	var theirNames []netip.Addr
	a := web
	for i := range 20 { // 20 of them are in what each client may have.
		n.Learn(victim, theirs, fmt.Sprintf("app%d.example", i), []netip.Addr{a}, time.Hour)
		theirNames = append(theirNames, a)
		a = a.Next()
	}
	first := a
	for i := range 5000 {
		n.Learn(attacker, theirs, fmt.Sprintf("evil%d.example", i), []netip.Addr{a}, time.Hour)
		a = a.Next()
	}
	for i, a := range theirNames {
		require.Equal(t, fmt.Sprintf("app%d.example", i), n.Name(victim, a))
	}
	unknown := netip.MustParseAddr("203.0.113.9")
	require.Empty(t, n.Name(attacker, first))
	require.True(t, n.Of(attacker, first).Forgotten)
	require.True(t, n.Of(attacker, unknown).Forgotten, "whether he asked for it is not known")
	require.Nil(t, n.Of(victim, unknown), "who has lost none is called nothing")
	require.NotZero(t, n.Figures().Forgotten)
	require.Len(t, slices.DeleteFunc(*warnings, func(w string) bool { return !strings.Contains(w, "before their time") }), 1, "%q", *warnings)
}

// As many clients as there are addresses on a link take from another no more than what is
// over its share, and get none of their own when there are too many.
func TestManyClientsForgetNothingOfAnother(t *testing.T) {
	n, now := newNames()
	n.MaxBytes = 1 << 20
	warnings := heard(n)
	var theirNames []netip.Addr
	a := web
	for i := range 20 {
		n.Learn(victim, theirs, fmt.Sprintf("app%d.example", i), []netip.Addr{a}, time.Hour)
		theirNames = append(theirNames, a)
		a = a.Next()
	}
	forged := netip.MustParseAddr("10.0.0.1")
	for range 5000 {
		for i := range 30 {
			if n.Learn(forged, theirs, fmt.Sprintf("evil%d.example", i), []netip.Addr{a}, time.Hour); i%5 == 0 {
				a = a.Next()
			}
		}
		forged = forged.Next()
	}
	for i, a := range theirNames {
		require.Equal(t, []string{fmt.Sprintf("app%d.example", i)}, n.Of(victim, a).Names)
	}
	f := n.Figures()
	require.NotZero(t, f.Crowded)
	require.LessOrEqual(t, f.Clients, int(n.MaxBytes*3/4/leastBytes))
	late := n.Of(forged, netip.MustParseAddr("203.0.113.9"))
	require.True(t, late != nil && late.Forgotten, "for who is too late counts what anybody asked for, of which there was too much")
	require.Contains(t, strings.Join(*warnings, "\n"), "hosts have names of their own")
	require.Len(t, *warnings, 2)

	now.now = now.now.Add(maxLife)
	n.Learn(forged, theirs, "app.example", []netip.Addr{web}, time.Hour)
	require.Equal(t, 1, n.Figures().Clients, "those who have none any more make room")
	require.Nil(t, n.Of(attacker, netip.MustParseAddr("203.0.113.9")))
}

// Which client a connection is of: that of a gateway's by its address, a proxy's own by the
// record that it has, and any program of this host the same.
func TestClientOfAConnection(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	record := redirect.Records{{Client: victim}}
	for want, ins := range map[netip.Addr][]fwps.Incoming{
		victim: {{Local: at("192.168.1.2:5000")}, {Local: at("[::ffff:192.168.1.2]:5000")}, {Local: at("10.0.0.1:5000"), Records: record}, {ProcessID: 7, Records: record}},
		here: {{}, {ProcessID: 7, Local: at("192.168.1.2:5000")}, {Local: at("0.0.0.0:0")}, {Local: at("[::]:0")}, {Local: at("192.168.1.2:5000"), Inbound: true},
			{ProcessID: 7, Records: redirect.Records{{}}}},
	} {
		for _, in := range ins {
			require.Equal(t, want, in.Client(), "%+v", in)
		}
	}
}

// A model that has all names in a list and no bounds says the same, where there is room.
func TestNamesAreThoseOfAModel(t *testing.T) {
	type said struct {
		client, addr netip.Addr
		resolver     netip.AddrPort
		name         string
		until        time.Time
	}
	clients := []netip.Addr{here, victim, attacker}
	addrs := []netip.Addr{web, web.Next(), netip.MustParseAddr("2001:db8::7")}
	resolvers := []netip.AddrPort{theirs, netip.MustParseAddrPort("192.0.2.54:53")}
	rapid.Check(t, func(t *rapid.T) {
		n, c := newNames()
		trusted := resolvers
		n.Trust(func(r netip.AddrPort) bool { return slices.Contains(trusted, r) })
		var all []said
		named := func(client, a netip.Addr) (names []string) {
			for _, s := range slices.Backward(all) {
				if s.client == client && s.addr == a && s.until.After(c.now) {
					names = append(names, s.name)
				}
			}
			return names
		}
		t.Repeat(map[string]func(*rapid.T){
			"learn": func(t *rapid.T) {
				s := said{rapid.SampledFrom(clients).Draw(t, "client"), netip.Addr{}, rapid.SampledFrom(resolvers).Draw(t, "resolver"),
					rapid.SampledFrom([]string{"a.example", "b.example", "c.example"}).Draw(t, "name"), time.Time{}}
				ttl := time.Duration(rapid.IntRange(0, 7200).Draw(t, "ttl")) * time.Second
				some := rapid.SliceOfNDistinct(rapid.SampledFrom(addrs), 1, 3, rapid.ID).Draw(t, "addresses")
				n.Learn(s.client, s.resolver, s.name, some, ttl)
				if !slices.Contains(trusted, s.resolver) {
					return
				}
				s.until = c.now.Add(min(max(ttl, minLife), maxLife))
				for _, s.client = range []netip.Addr{s.client, everybody} {
					for _, s.addr = range some {
						all = slices.DeleteFunc(all, func(o said) bool { return o.client == s.client && o.addr == s.addr && o.name == s.name })
						all = append(all, s)
					}
				}
			},
			"time": func(t *rapid.T) {
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 1800).Draw(t, "seconds")) * time.Second)
			},
			"trust": func(t *rapid.T) {
				trusted = rapid.SliceOfDistinct(rapid.SampledFrom(resolvers), rapid.ID).Draw(t, "trusted")
				n.Trust(func(r netip.AddrPort) bool { return slices.Contains(trusted, r) })
				all = slices.DeleteFunc(all, func(s said) bool { return !slices.Contains(trusted, s.resolver) })
			},
			"": func(t *rapid.T) {
				for _, client := range append(clients, netip.MustParseAddr("192.168.1.4")) {
					for _, a := range addrs {
						want := named(client, a)
						if want == nil {
							want = named(everybody, a)
						}
						var got []string
						if p := n.Of(client, a); p != nil {
							require.False(t, p.Forgotten)
							got = p.Names
						}
						require.Equal(t, want, got)
					}
				}
				total := int64(0)
				n.entries.Range(func(_, v any) bool { total += v.(*entry).bytes; return true })
				require.Equal(t, n.Figures().Bytes, total+int64(len(n.clients))*clientBytes)
			},
		})
	})
}

// To ask allocates nothing, whether an address is known or not.
func TestToAskAllocatesNothing(t *testing.T) {
	n, _ := newNames()
	n.Learn(victim, theirs, "app.example", []netip.Addr{web}, time.Hour)
	n.lost.Store(true) // It is looked up who has lost names.
	require.Zero(t, testing.AllocsPerRun(100, func() { n.Of(victim, web); n.Of(attacker, web); n.Of(victim, web.Next()) }))
}

func BenchmarkNames(b *testing.B) {
	var n Names
	a := netip.MustParseAddr("1.0.0.0")
	for i := range 10000 {
		n.Learn(victim, theirs, fmt.Sprint("www", i, ".example.com"), []netip.Addr{a}, time.Hour)
		a = a.Next()
	}
	for name, c := range map[string][2]string{"known": {"192.168.1.2", "1.0.8.1"}, "others": {"192.168.1.3", "1.0.8.1"}, "unknown": {"192.168.1.2", "203.0.113.9"}} {
		client, addr := netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1])
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n.Name(client, addr)
			}
		})
	}
}

// That names were forgotten counts as long as they would have been good, also when somebody
// sets the clock: else a filter that blocks by name could be gone around, or blocks for years.
func TestTheClockIsSetAfterNamesWereForgotten(t *testing.T) {
	began := time.Now()
	n, now := newNames()
	now.now = began
	n.MaxBytes = 1 << 20
	heard(n)
	a := web
	for i := range 5000 {
		n.Learn(attacker, theirs, fmt.Sprintf("evil%d.example", i), []netip.Addr{a}, maxLife)
		a = a.Next()
	}
	for _, seconds := range []int64{0, 1 << 20, -1 << 20} {
		now.now = clockset.Later(began.Add(maxLife-1), seconds)
		p := n.Of(attacker, web)
		require.True(t, p != nil && p.Forgotten, "set by %d s", seconds)
		now.now = clockset.Later(began.Add(maxLife), seconds)
		require.Nil(t, n.Of(attacker, web), "set by %d s", seconds)
	}
}
