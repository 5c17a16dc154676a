//go:build linux

package nftgateway

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Whatever another tool does to the router's packets, after the gateway starts or before:
// what the policy blocks is not reached. What it permits is, where the tool leaves it the
// connection and its mark.
func TestRulesOfOthersOpenNoWay(t *testing.T) {
	mail := netip.MustParseAddrPort("198.18.1.2:25")
	raw, mangle, dst, src := *nftables.ChainPriorityRaw, *nftables.ChainPriorityMangle, *nftables.ChainPriorityNATDest, *nftables.ChainPriorityNATSource
	const beforeFragments = -450 // are put together
	const first, last = -1000, 1000
	for name, of := range map[string]struct {
		prepare func(n *network)
		loses   []bool // what it permits: in these modes (transparent)
	}{
		"it is not tracked":                 {foreign(nftables.ChainHookPrerouting, raw, &expr.Notrack{}), []bool{false, true}},
		"fragments are not put together":    {foreign(nftables.ChainHookPrerouting, beforeFragments, &expr.Notrack{}), []bool{false, true}},
		"it has a zone":                     {foreign(nftables.ChainHookPrerouting, raw, load(binaryutil.NativeEndian.PutUint16(7)), &expr.Ct{Key: expr.CtKeyZONE, Register: register, SourceRegister: true}), []bool{false, true}},
		"it has a mark":                     {foreign(nftables.ChainHookPrerouting, mangle-1, mark(1)...), nil},
		"it gets another mark":              {foreign(nftables.ChainHookPrerouting, mangle+1, mark(1)...), []bool{true}},
		"it is accepted first":              {foreign(nftables.ChainHookPrerouting, first, &expr.Verdict{Kind: expr.VerdictAccept}), nil},
		"it is accepted where it goes on":   {foreign(nftables.ChainHookForward, first, &expr.Verdict{Kind: expr.VerdictAccept}), nil},
		"it is accepted last":               {foreign(nftables.ChainHookForward, last, &expr.Verdict{Kind: expr.VerdictAccept}), nil},
		"it is masqueraded":                 {foreign(nftables.ChainHookPostrouting, src, &expr.Masq{}), nil},
		"a port is published":               {foreign(nftables.ChainHookPrerouting, dst, publish(8080, mail)...), nil},
		"a port is published earlier":       {foreign(nftables.ChainHookPrerouting, dst-1, publish(8080, mail)...), nil},
		"another destination gets the port": {foreign(nftables.ChainHookPrerouting, dst-1, publish(80, mail)...), []bool{false, true}},
		"it has a route of its own": {func(n *network) {
			require.NoError(n.t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("198.18.1.2"), Table: 7}))
			r := netlink.NewRule()
			r.IifName, r.Table, r.Priority, r.Family = "in", 7, 50, unix.AF_INET
			require.NoError(n.t, netlink.RuleAdd(r))
		}, []bool{true}},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(n *network, transparent bool) {
				n.serveAt("tcp4", mail.String(), "25")
				n.serveAt("tcp4", "198.18.1.2:80", "80")
				o := Options{Interfaces: []string{"in"}, ALE: deciding(n.t, netip.AddrPort{}), Transparent: transparent, Logf: n.t.Logf}
				try := func() {
					for _, to := range []string{mail.String(), "198.18.0.1:8080", "198.18.1.2:80"} {
						works, wait := to == "198.18.1.2:80" && !slices.Contains(of.loses, transparent), 300*time.Millisecond
						if works {
							wait = waitTime
						}
						var c net.Conn
						var err error
						n.at(n.inside, func() { c, err = net.DialTimeout("tcp4", to, wait) })
						if err == nil {
							require.NoError(n.t, c.SetDeadline(time.Now().Add(wait)))
						}
						got, err := get(c, err)
						require.Equal(n.t, works, err == nil, "%s: %q, %v", to, got, err)
						require.NotEqual(n.t, "25", got, to)
					}
				}
				g, err := Start(n.t.Context(), o)
				require.NoError(n.t, err)
				of.prepare(n)
				try()
				require.NoError(n.t, g.Close())
				g, err = Start(n.t.Context(), o)
				require.NoError(n.t, err)
				try()
				require.NoError(n.t, g.Close())
			})
		})
	}
}

// foreign has the router have a rule of another tool.
func foreign(hook *nftables.ChainHook, priority nftables.ChainPriority, what ...expr.Any) func(*network) {
	return func(n *network) {
		c, err := nftables.New()
		require.NoError(n.t, err)
		table, kind := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet}), nftables.ChainTypeFilter
		switch what[len(what)-1].(type) {
		case *expr.NAT, *expr.Masq:
			kind = nftables.ChainTypeNAT
		}
		chain := c.AddChain(&nftables.Chain{Name: "chain", Table: table, Type: kind, Hooknum: hook, Priority: &priority})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: what})
		require.NoError(n.t, c.Flush())
	}
}

func load(data []byte) expr.Any { return &expr.Immediate{Register: register, Data: data} }

func mark(m uint32) []expr.Any {
	return []expr.Any{load(binaryutil.NativeEndian.PutUint32(m)), &expr.Meta{Key: expr.MetaKeyMARK, Register: register, SourceRegister: true}}
}

// publish sends what is for a port to a port elsewhere, as Docker does for a container.
func publish(port uint16, to netip.AddrPort) []expr.Any {
	return slices.Concat(is(meta(expr.MetaKeyNFPROTO), unix.NFPROTO_IPV4), is(meta(expr.MetaKeyL4PROTO), unix.IPPROTO_TCP), []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
		load(to.Addr().AsSlice()), &expr.Immediate{Register: register + 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: register, RegProtoMin: register + 1}})
}
