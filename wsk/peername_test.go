package wsk_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// What a client says that its peer is called is PEER_NAME of its connect, until
// it deletes it; once it connects it has said whom it means.
func TestPeerTargetName(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, addr := w.listen(t)
	defer shut(t, l)
	var seen []string
	w.AtConnect(t, func(c *fwps.Call, _ *fwps.Verdict) { seen = append(seen, c.In.Other[fwpm.ConditionPeerName].Text) })
	name := wsk.AppendPeerTargetName(nil, addr, "münchen.example")
	for i, c := range []struct {
		code uint32
		in   []byte
		want ntstatus.Status
		seen string
	}{
		{wsk.SIOSetPeerTargetName, name, ntstatus.Success, "münchen.example"},
		{wsk.SIODeletePeerTargetName, nil, ntstatus.Success, ""},
		{wsk.SIOSetPeerTargetName, name[:20], ntstatus.InvalidParameter, ""},
		{wsk.SIOSetPeerTargetName, name[:len(name)-2], ntstatus.InvalidParameter, ""},
		{wsk.SIOSetPeerTargetName, wsk.AppendPeerTargetName(nil, netip.AddrPort{}, ""), ntstatus.InvalidParameter, ""},
		{wsk.SIOSetPeerTargetName, wsk.AppendPeerTargetName(nil, addr, string(make([]byte, 256))), ntstatus.InvalidParameter, ""},
	} {
		s := w.socket(t, wsk.ConnectionSocket, nil)
		set := func(code uint32, in []byte) ntstatus.Status {
			st, _ := run(func(p *wsk.IRP) ntstatus.Status { return s.ControlSocket(wsk.Ioctl, code, 0, in, nil, nil, p) })
			return st.Status
		}
		if c.code == wsk.SIODeletePeerTargetName {
			require.Equal(t, ntstatus.Success, set(wsk.SIOSetPeerTargetName, name))
		}
		require.Equal(t, c.want, set(c.code, c.in), i)
		from := netip.MustParseAddrPort("0.0.0.0:0")
		must(t, func(p *wsk.IRP) ntstatus.Status { return s.Bind(from, 0, p) })
		must(t, func(p *wsk.IRP) ntstatus.Status { return s.Connect(addr, 0, p) })
		require.Equal(t, c.seen, seen[i])
		require.Equal(t, ntstatus.ConnectionActive, set(wsk.SIOSetPeerTargetName, name))
		far := accept(t, l)
		require.Equal(t, ntstatus.ConnectionActive, func() ntstatus.Status {
			st, _ := run(func(p *wsk.IRP) ntstatus.Status {
				return far.ControlSocket(wsk.Ioctl, wsk.SIOSetPeerTargetName, 0, name, nil, nil, p)
			})
			return st.Status
		}())
		shut(t, s, far)
	}
}
