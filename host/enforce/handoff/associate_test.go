package handoff

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAssociateConversations(t *testing.T) {
	for _, c := range []struct{ name, says, relay, why string }{
		{"IPv4", "\x05\x00" + "\x05\x00\x00\x01\xc0\x00\x02\x01\x04\x38", "192.0.2.1:1080", ""},
		{"IPv6", "\x05\x00" + "\x05\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x04\x38", "[2001:db8::7]:1080", ""},
		{"where the connection goes", "\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x04\x38", "0.0.0.0:1080", ""},
		{"a name", "\x05\x00" + "\x05\x00\x00\x03\x04host\x04\x38", "", "did not say where datagrams go"},
		{"a name as long as an address", "\x05\x00" + "\x05\x00\x00\x03\x10sixteen-letters-\x04\x38", "", "did not say where datagrams go"},
		{"no port", "\x05\x00" + "\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x00", "", "did not say where datagrams go"},
		{"does not take datagrams", "\x05\x00" + "\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", "", "does not know the command"},
	} {
		p := &peer{says: bytes.NewReader([]byte(c.says)), piece: 1}
		got, err := (&Proxy{Kind: SOCKS5}).associate(p)
		if c.why != "" {
			require.EqualError(t, err, "the socks5 proxy "+c.why, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, c.relay, got.String(), c.name)
		require.Equal(t, "\x05\x01\x00"+"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", p.heard.String(), c.name)
	}
	_, err := (&Proxy{Kind: HTTPConnect}).associate(nil)
	require.EqualError(t, err, "the http-connect proxy takes connections only")
}

// What a proxy sends is taken apart without a panic, and only to what it was made of.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte("payload"), to4.Addr().AsSlice(), to4.Port())
	f.Add([]byte{}, to6.Addr().AsSlice(), to6.Port())
	f.Add([]byte("\x00\x00\x01\x01\x00\x00\x00\x00\x00\x00x"), []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, b, addr []byte, port uint16) {
		if from, payload, err := parseDatagram(b); err == nil && !(b[3] == socksIPv6 && netip.AddrFrom16([16]byte(b[4:20])).Is4In6()) {
			b[0], b[1] = 0, 0 // reserved
			require.Equal(t, b, append(appendDatagram(nil, from), payload...))
		}
		a, ok := netip.AddrFromSlice(addr)
		if !ok {
			return
		}
		to := netip.AddrPortFrom(a.Unmap(), port)
		from, payload, err := parseDatagram(append(appendDatagram(nil, to), b...))
		require.NoError(t, err)
		require.Equal(t, to, from)
		require.Equal(t, len(b), len(payload))
	})
}

// Nor is a datagram sent that the proxy could have go out by another link.
func TestDatagramsOfOneLinkAreNotSent(t *testing.T) {
	proxy, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer proxy.Close()
	relay, err := net.DialUDP("udp4", nil, proxy.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer relay.Close()
	a := &Association{p: &Proxy{Kind: SOCKS5}, relay: relay}
	for _, to := range []string{"[fe80::7%3]:53", "[ff02::fb]:5353", "[ff01::1%1]:7"} {
		require.ErrorContains(t, a.WriteTo([]byte("x"), netip.MustParseAddrPort(to)), "is of one link", to)
	}
	for _, to := range []string{"[::ffff:169.254.1.1]:53", "[ff05::fb]:53", "[2001:db8::7%3]:53"} {
		require.NoError(t, a.WriteTo([]byte("x"), netip.MustParseAddrPort(to)), to)
	}
}
