package ale_test

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// A link-local address is one of a link: a callout that names none means that of the
// original destination, and a link has one name for both ends, its number.
func TestRedirectsStayOnTheirLink(t *testing.T) {
	all, err := net.Interfaces()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	name, number := "%"+all[0].Name, "%"+strconv.Itoa(all[0].Index)
	for _, c := range []struct {
		name, from, to, want string
		redirected           bool
	}{
		{"another port", "[fe80::9%7]:80", "[fe80::9]:81", "[fe80::9%7]:81", true},
		{"another address", "[fe80::9%7]:80", "[fe80::5]:80", "[fe80::5%7]:80", true},
		{"AMB-32 nothing else", "[fe80::9%7]:80", "[fe80::9]:80", "[fe80::9%7]:80", false},
		{"AMB-32 its name", "[fe80::9" + number + "]:80", "[fe80::9" + name + "]:80", "[fe80::9" + number + "]:80", false},
		{"AMB-32 its number", "[fe80::9" + name + "]:80", "[fe80::9" + number + "]:80", "[fe80::9" + number + "]:80", false},
		{"another link", "[fe80::9%7]:80", "[fe80::9%8]:80", "[fe80::9%8]:80", true},
		{"a link that there is not", "[fe80::9%7]:80", "[fe80::9%no-such-link]:80", "[fe80::9%no-such-link]:80", true},
		{"no link", "[fe80::9%7]:80", "[2001:db8::1]:80", "[2001:db8::1]:80", true},
		{"to a link", "[2001:db8::1]:80", "[fe80::9]:80", "[fe80::9]:80", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
				fwpm.LayerALEConnectRedirectV6: redirectTo(netip.MustParseAddrPort(c.to), 7, 1)}}
			// Every address of the link that is redirected to is this host's.
			e := ale.New(ale.Options{Classifier: p, Store: memstore.New(0), IsLocal: func(a netip.Addr) bool { return a.IsLinkLocalUnicast() && a.Zone() == "" }})
			in := app().in
			in.Local, in.Remote = netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort(c.from)
			s := e.NewSocket(in)
			defer s.Close()
			var to ale.Target
			local := 0
			f, err := s.Connect(t.Context(), in.Remote, func(_ context.Context, target ale.Target) (netip.AddrPort, error) {
				to, local = target, len(target.Records)
				return netip.MustParseAddrPort("[fe80::1]:1000"), nil
			})
			require.NoError(t, err)
			defer f.Close()
			require.Equal(t, c.want, to.Remote.String())
			require.Equal(t, c.redirected, f.Redirected)
			want := 0
			if c.redirected && to.Remote.Addr().IsLinkLocalUnicast() {
				want = 1
			}
			require.Equal(t, want, local, "the record of what stays here")
		})
	}
}

// Filters and callouts see addresses without zones: they know the link by its interface, and
// that of where the connection goes now.
func TestInterfaceIsTheLinkOfThePeer(t *testing.T) {
	all, err := net.Interfaces()
	require.NoError(t, err)
	known := all[0]
	own := map[fwpm.ConditionID]fwp.Value{fwpm.ConditionInterfaceIndex: fwp.U32(5), fwpm.ConditionPeerName: fwp.Blob("x")}
	for _, c := range []struct {
		name, from, to string
		given          map[fwpm.ConditionID]fwp.Value
		asked, goes    uint64 // 0: not known
	}{
		{"a link", "[fe80::9%7]:80", "", nil, 7, 7},
		{"by its name", "[fe80::9%" + known.Name + "]:80", "", nil, uint64(known.Index), uint64(known.Index)},
		{"a link that there is not", "[fe80::9%no-such-link]:80", "", nil, 0, 0},
		{"any", "[fe80::9]:80", "", nil, 0, 0},
		{"none", "[2001:db8::9]:80", "", nil, 0, 0},
		{"what is known otherwise", "[2001:db8::9]:80", "", own, 5, 5},
		{"the zone counts", "[fe80::9%7]:80", "", own, 7, 7},
		{"to loopback", "[fe80::9%7]:80", "[::1]:80", own, 7, 0},
		{"to the same link", "[fe80::9%7]:80", "[fe80::5]:80", nil, 7, 7},
		{"to another", "[fe80::9%7]:80", "[fe80::5%8]:80", nil, 7, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){}}
			if c.to != "" {
				p.at[fwpm.LayerALEConnectRedirectV6] = redirectTo(netip.MustParseAddrPort(c.to), 7, 1)
			}
			e, _, _ := enforcer(p)
			a := app()
			a.in.Local, a.in.Remote, a.in.Other = netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort(c.from), c.given
			f, err := e.Connect(t.Context(), a)
			require.NoError(t, err)
			defer f.Close()
			require.EqualValues(t, map[bool]int{true: 2}[c.given != nil], len(c.given), "the caller's own stays")
			asked, goes := 0, 0
			for _, in := range p.seen {
				n := in.Other[fwpm.ConditionInterfaceIndex].Uint
				switch in.Layer {
				case fwpm.LayerALEConnectRedirectV6:
					asked++
					require.Equal(t, c.asked, n)
				case fwpm.LayerALEAuthConnectV6:
					goes++
					require.Equal(t, map[bool]uint64{true: c.asked, false: c.goes}[in.Flags&fwp.FlagIsHonoringPolicyAuthorize != 0], n)
				}
				if c.given != nil && in.Remote.IsValid() {
					require.Equal(t, "x", in.Other[fwpm.ConditionPeerName].Text)
				}
			}
			require.Equal(t, 1, asked)
			require.NotZero(t, goes)
		})
	}
}

// Who comes from an address of a link came in by it.
func TestInterfaceIsTheLinkThatAConnectionCameBy(t *testing.T) {
	p := &policy{}
	e, _, _ := enforcer(p)
	f, err := e.Accept(t.Context(), fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("[fe80::5%7]:80"), Remote: netip.MustParseAddrPort("[fe80::9%7]:1000")})
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, fwpm.LayerALEAuthRecvAcceptV6, p.seen[0].Layer)
	require.EqualValues(t, 7, p.seen[0].Other[fwpm.ConditionInterfaceIndex].Uint)
}

// A proxy at an address of a link finds the records, whichever end names the link and
// whichever numbers it.
func TestRecordsAreFoundOnALink(t *testing.T) {
	all, err := net.Interfaces()
	require.NoError(t, err)
	name, number := "%"+all[0].Name, "%"+strconv.Itoa(all[0].Index)
	for _, connects := range []string{name, number} {
		for _, accepts := range []string{name, number} {
			p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){
				fwpm.LayerALEConnectRedirectV6: redirectTo(netip.MustParseAddrPort("[fe80::5]:80"), 7, 1)}}
			e := ale.New(ale.Options{Classifier: p, Store: memstore.New(0), IsLocal: netip.Addr.IsLinkLocalUnicast})
			a := app()
			a.in.Local, a.in.Remote, a.local = netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort("[fe80::9"+number+"]:80"), netip.MustParseAddrPort("[fe80::5"+connects+"]:1000")
			f, err := e.Connect(t.Context(), a)
			require.NoError(t, err)
			got, err := e.Accept(t.Context(), fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("[fe80::5" + accepts + "]:80"), Remote: netip.MustParseAddrPort("[fe80::5" + accepts + "]:1000")})
			require.NoError(t, err)
			require.Len(t, got.Records, 1, "%s %s", connects, accepts)
			require.Equal(t, "[fe80::9"+number+"]:80", got.Original.String())
			got.Close()
			f.Close()
		}
	}
}
