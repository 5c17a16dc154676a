package ale_test

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
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
