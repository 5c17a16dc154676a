package wsk_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// What a socket's owner asks of names: only the transports that it hints at, the name that
// was asked for, and nothing that contradicts itself.
func TestAddressInfoHints(t *testing.T) {
	w := open(t, wsk.Debug{})
	ask := func(hints wsk.AddrInfo) (list []wsk.AddrInfo, status ntstatus.Status) {
		var first *wsk.AddrInfo
		st, _ := run(func(p *wsk.IRP) ntstatus.Status { return w.GetAddressInfo("192.0.2.1", "80", &hints, &first, p) })
		for a := first; a != nil; a = a.Next {
			list = append(list, *a)
		}
		w.FreeAddressInfo(first)
		if first != nil {
			require.Equal(t, wsk.AddrInfo{}, *first, "what was freed is of no use")
		}
		return list, st.Status
	}
	all, st := ask(wsk.AddrInfo{})
	require.Equal(t, ntstatus.Success, st)
	require.Greater(t, len(all), 1)
	for _, one := range all {
		got, st := ask(wsk.AddrInfo{SocketType: one.SocketType, Protocol: one.Protocol})
		require.Equal(t, ntstatus.Success, st)
		for _, g := range got {
			require.Equal(t, [2]any{one.SocketType, one.Protocol}, [2]any{g.SocketType, g.Protocol})
		}
	}
	for _, none := range []wsk.AddrInfo{{SocketType: wsk.SockStream, Protocol: wsk.IPProtoUDP}, {SocketType: wsk.SockDgram, Protocol: wsk.IPProtoTCP}, {Family: wsk.AFInet6}} {
		_, st := ask(none)
		require.Equal(t, ntstatus.NotFound, st)
	}
	named, _ := ask(wsk.AddrInfo{Flags: wsk.AICanonName})
	require.Equal(t, "192.0.2.1", named[0].CanonName)
	require.Empty(t, named[1].CanonName, "the first has it")

	a, node, service := netip.MustParseAddrPort("192.0.2.1:80"), "", ""
	for _, wrong := range []func(*wsk.IRP) ntstatus.Status{
		func(p *wsk.IRP) ntstatus.Status { return w.GetNameInfo(netip.AddrPort{}, &node, &service, 0, p) },
		func(p *wsk.IRP) ntstatus.Status { return w.GetNameInfo(a, nil, nil, wsk.NINumericHost, p) },
		func(p *wsk.IRP) ntstatus.Status { return w.GetNameInfo(a, &node, nil, 0x20, p) },
		func(p *wsk.IRP) ntstatus.Status {
			return w.GetNameInfo(a, &node, nil, wsk.NINumericHost|wsk.NINameReqd, p)
		},
	} {
		st, _ := run(wrong)
		require.Equal(t, ntstatus.InvalidParameter, st.Status)
	}
	for _, right := range []func(*wsk.IRP) ntstatus.Status{
		func(p *wsk.IRP) ntstatus.Status { return w.GetNameInfo(a, &node, nil, wsk.NINumericHost, p) },
		func(p *wsk.IRP) ntstatus.Status { return w.GetNameInfo(a, nil, &service, wsk.NINameReqd, p) },
	} {
		must(t, right)
	}
	require.Equal(t, "192.0.2.1 80", node+" "+service)
}
