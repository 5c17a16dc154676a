package explore_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
	"github.com/calloutd/calloutd/host/fwps"
)

func good() explore.Connection {
	return explore.Connection{Program: "/usr/bin/curl", User: "1000", PID: "7", To: "198.51.100.7:80", Protocol: "tcp"}
}

func TestAConnectionInWords(t *testing.T) {
	c := good()
	c.Groups, c.From = "27, 1000", " 10.0.0.5:4000 "
	in, mistakes := c.Incoming()
	require.Empty(t, mistakes)
	require.Equal(t, fwps.Incoming{AppID: "/usr/bin/curl", UserID: 1000, UserKnown: true, Groups: []uint32{27, 1000}, ProcessID: 7, Protocol: fwps.ProtocolTCP,
		Local: netip.MustParseAddrPort("10.0.0.5:4000"), Remote: netip.MustParseAddrPort("198.51.100.7:80")}, in)

	c.Inbound = true // The program is at what it is said to go to.
	in, mistakes = c.Incoming()
	require.Empty(t, mistakes)
	require.True(t, in.Inbound)
	require.Equal(t, "198.51.100.7:80", in.Local.String())
	require.Equal(t, "10.0.0.5:4000", in.Remote.String())

	c = explore.Connection{To: "[2001:db8::7]:443", Protocol: "17", User: "unknown"} // What is empty is not known.
	in, mistakes = c.Incoming()
	require.Empty(t, mistakes)
	require.Equal(t, fwps.Incoming{Protocol: fwps.ProtocolUDP, Remote: netip.MustParseAddrPort("[2001:db8::7]:443")}, in)

	c.User = "root"
	in, mistakes = c.Incoming()
	require.Empty(t, mistakes)
	require.True(t, in.UserKnown)
	require.Zero(t, in.UserID)
}

// Each mistake is told with the characters that it is about.
func TestMistakesHaveTheirPlace(t *testing.T) {
	for _, c := range []struct {
		field, text, bad, says string
	}{
		{"to", "", "", "expected an address and a port"},
		{"to", "nonsense", "nonsense", "expected an address and a port"},
		{"to", "example.com:80", "example.com", "a name is looked up before a program connects: expected its address"},
		{"to", "198.51.100.7", "", "the port is missing, such as 198.51.100.7:80"},
		{"to", "198.51.100.700:80", "700", "each part of an IPv4 address"},
		{"to", "  198.051.100.7:80", "051", "each part of an IPv4 address"},
		{"to", "198..100.7:80", "", "each part of an IPv4 address"},
		{"to", "198.51.100:80", "198.51.100", "expected an address and a port"},
		{"to", "198.51.100.7:", "", "a port is a number from 0 to 65535"},
		{"to", "198.51.100.7:65536", "65536", "a port is a number from 0 to 65535"},
		{"to", "2001:db8::face", "2001:db8::face", "an IPv6 address with a port has brackets, such as [2001:db8::face]:80"},
		{"to", "2001:db8::7:443", "2001:db8::7:443", "an IPv6 address with a port has brackets, such as [2001:db8::7]:443"},
		{"to", "http://198.51.100.7/", "http://198.51.100.7/", "an address is no URL: expected an address and a port, such as 198.51.100.7:80 or [2001:db8::7]:80"},
		{"to", "[2001:db8::g]:80", "[2001:db8::g]", "expected an address and a port"},
		{"from", "[::1]:1", "[::1]:1", "an address of another family than where the connection goes, 198.51.100.7:80"},
		{"protocol", " quic ", "quic", "expected tcp, udp or a number up to 255"},
		{"protocol", "256", "256", "expected tcp, udp or a number up to 255"},
		{"user", "nobody at all", "nobody at all", "expected a number, a user of this system, or unknown"},
		{"user", "4294967296", "4294967296", "expected a number"},
		{"groups", "27, wheel, 28", "wheel", "expected the numbers of groups"},
		{"pid", "-1", "-1", "expected the number of a process"},
		{"host_name", "app example", " ", "a name has no spaces"},
		{"peer_name", "äpp\x00", "\x00", "a name has no spaces"},
		{"peer_name", "äpp.example", "ä", "a name has letters of the DNS (xn--... for others), digits, dots, dashes and underscores"},
		{"host_name", "app.example:80", ":", "a name has letters of the DNS (xn--... for others), digits, dots, dashes and underscores"},
	} {
		t.Run(c.field+" "+c.text, func(t *testing.T) {
			conn := good()
			set(&conn, c.field, c.text)
			_, mistakes := conn.Incoming()
			require.Len(t, mistakes, 1)
			m := mistakes[0]
			require.Equal(t, c.field, m.Field)
			require.Contains(t, m.Message, c.says)
			require.Equal(t, c.bad, string([]rune(c.text)[m.At:m.At+m.Length]))
			require.Equal(t, c.text, conn.Field(m.Field))
		})
	}
	c := good()
	c.Inbound = true
	_, mistakes := c.Incoming()
	require.Equal(t, []explore.Mistake{{Field: "from", Message: "an inbound connection comes from somewhere: expected the address and port of who connects"}}, mistakes)
}

func set(c *explore.Connection, field, text string) {
	*map[string]*string{"to": &c.To, "from": &c.From, "protocol": &c.Protocol, "user": &c.User, "groups": &c.Groups, "pid": &c.PID, "host_name": &c.HostName, "peer_name": &c.PeerName}[field] = text
}

func TestEveryMistakeIsTold(t *testing.T) {
	c := explore.Connection{To: "x", Protocol: "y", User: "no such user", Groups: "a b", PID: "z"}
	_, mistakes := c.Incoming()
	var fields []string
	for _, m := range mistakes {
		fields = append(fields, m.Field)
	}
	require.Equal(t, []string{"user", "groups", "groups", "pid", "protocol", "to"}, fields)
}
