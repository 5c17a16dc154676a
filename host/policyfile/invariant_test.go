package policyfile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyfile"
)

func TestAnInvariantIsAboutWhatAllOfItsKeysSay(t *testing.T) {
	f, err := policyfile.Parse("p.yaml", []byte(`version: 1
proxies: [{id: a, kind: forward}]
invariants:
  - name: everything
    program: /opt/app/
    user: 7
    protocol: udp
    to: [10.0.0.0/8, "2001:db8::/32"]
    not_to: [10.1.0.0/16]
    ports: [53, 0x1bb]
    must: [block, redirect]
    proxies: [a]
  - {name: one program, program: /bin/a, protocol: tcp, must: [permit]}
`))
	require.NoError(t, err)
	v := &f.Invariants[0]
	require.Equal(t, "p.yaml:4", v.Place)
	require.Equal(t, []string{"block", "redirect"}, v.Must)
	require.Equal(t, []string{"a"}, v.Proxies)
	addr := netip.MustParseAddrPort
	for _, c := range []struct {
		name     string
		program  string
		user     uint32
		known    bool
		protocol uint8
		to       string
		want     bool
	}{
		{"all", "/opt/app/x", 7, true, 17, "10.0.0.1:53", true},
		{"IPv6", "/opt/app/x/y", 7, true, 17, "[2001:db8::1]:443", true},
		{"an IPv4 address as IPv6", "/opt/app/x", 7, true, 17, "[::ffff:10.0.0.1]:53", true},
		{"another folder", "/opt/application", 7, true, 17, "10.0.0.1:53", false},
		{"another user", "/opt/app/x", 8, true, 17, "10.0.0.1:53", false},
		{"an unknown user", "/opt/app/x", 7, false, 17, "10.0.0.1:53", false},
		{"another protocol", "/opt/app/x", 7, true, 6, "10.0.0.1:53", false},
		{"another network", "/opt/app/x", 7, true, 17, "192.0.2.1:53", false},
		{"a network that is left out", "/opt/app/x", 7, true, 17, "10.1.0.1:53", false},
		{"another port", "/opt/app/x", 7, true, 17, "10.0.0.1:54", false},
	} {
		require.Equal(t, c.want, v.About(c.program, c.user, c.known, c.protocol, addr(c.to)), c.name)
	}
	one := &f.Invariants[1]
	require.True(t, one.About("/bin/a", 0, false, 6, addr("192.0.2.1:1")))
	require.False(t, one.About("/bin/ab", 0, false, 6, addr("192.0.2.1:1")))
	require.False(t, one.About("/bin/a", 0, false, 17, addr("192.0.2.1:1")))
}

func TestMistakesOfInvariantsHaveTheirPlace(t *testing.T) {
	_, err := policyfile.Parse("p.yaml", []byte(`version: 1
invariants:
  - {name: a, must: []}
  - {name: b, must: [allow]}
  - {name: c}
  - {name: d, must: [redirect], proxies: [none], ports: [0], to: [here]}
`))
	require.EqualError(t, err, `p.yaml:3:21: must: the list is empty, so nothing could be right
p.yaml:4:22: must: expected an outcome, found "allow" (did you mean "permit"?)
p.yaml:5:5: must is missing
p.yaml:6:43: proxies: expected a proxy of this file, which has none, found "none"
p.yaml:6:58: ports: expected a number from 1 to 65535, found the number 0
p.yaml:6:67: to: expected an address or a network such as 192.0.2.0/24, found "here"`)
}
