package wsk_test

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Whatever a client passes to WskControlSocket, its IRP is completed once, with
// the status that was returned, and nothing is written outside what is told.
func FuzzControlSocket(f *testing.F) {
	w := open(f, wsk.Debug{})
	f.Add(uint8(2), uint32(wsk.SIOQueryWFPConnectionRedirectRecords), uint32(0), []byte{}, uint16(1024))
	f.Add(uint8(2), uint32(wsk.SIOSetWFPConnectionRedirectRecords), uint32(0), make([]byte, 104), uint16(0))
	f.Add(uint8(2), uint32(wsk.SIOSetPeerTargetName), uint32(0), wsk.AppendPeerTargetName(nil, netip.AddrPort{}, "a.example"), uint16(0))
	f.Add(uint8(2), uint32(wsk.SIOAddressListSort), uint32(0), wsk.AppendAddressList(nil, []netip.Addr{netip.IPv6Loopback()}), uint16(64))
	f.Add(uint8(0), uint32(wsk.SOWSKEventCallback), uint32(0xFFFF), wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: 0x40}.Append(nil), uint16(0))
	f.Add(uint8(1), uint32(wsk.SOOriginalDst), uint32(0xFFFF), []byte{}, uint16(128))
	f.Fuzz(func(t *testing.T, typ uint8, code, level uint32, in []byte, size uint16) {
		if code == wsk.SIOAddressListChange {
			return // It pends until the addresses change.
		}
		for _, cat := range []wsk.Category{wsk.BasicSocket, wsk.ListenSocket, wsk.ConnectionSocket, wsk.StreamSocket, wsk.DatagramSocket} {
			kind, proto := wsk.SockStream, wsk.IPProtoTCP
			if cat == wsk.DatagramSocket {
				kind, proto = wsk.SockDgram, wsk.IPProtoUDP
			}
			s := must(t, func(p *wsk.IRP) ntstatus.Status {
				return w.Socket(wsk.AFInet, kind, proto, cat, nil, nil, nil, 0, p)
			})
			out := make([]byte, size)
			var inline ntstatus.Status
			var returned int
			st, _ := run(func(p *wsk.IRP) ntstatus.Status {
				inline = s.ControlSocket(wsk.ControlSocketType(typ), code, level, in, out, &returned, p)
				return inline
			})
			if inline != ntstatus.Pending {
				require.Equal(t, inline, st.Status, "WSK-RET-05")
			}
			if !st.Status.Ok() {
				for _, b := range out {
					require.Zero(t, b, "%v wrote to the buffer", st.Status)
				}
			}
			s.ControlSocket(wsk.ControlSocketType(typ), code, level, in, out, &returned, nil)
			shut(t, s)
		}
	})
}

// What ParseAddressList takes it gives back the same.
func FuzzParseAddressList(f *testing.F) {
	f.Add(wsk.AppendAddressList(nil, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.IPv6Loopback()}))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs, ok := wsk.ParseAddressList(b)
		if !ok {
			return
		}
		again, ok := wsk.ParseAddressList(wsk.AppendAddressList(nil, addrs))
		require.True(t, ok)
		require.Equal(t, addrs, again)
	})
}

// A SOCKADDR_IN6 has the number of an interface where Go may have its name.
func TestSockaddrHasTheScope(t *testing.T) {
	all, err := net.Interfaces()
	require.NoError(t, err)
	for zone, want := range map[string]string{"": "", "7": "7", "4294967295": "4294967295", "no such interface": "", all[0].Name: strconv.Itoa(all[0].Index)} {
		a := netip.MustParseAddr("fe80::1").WithZone(zone)
		got, ok := wsk.ParseSockaddr(wsk.AppendSockaddr(nil, netip.AddrPortFrom(a, 80)))
		require.True(t, ok)
		require.Equal(t, netip.AddrPortFrom(a.WithZone(want), 80), got)
	}
}

func FuzzParseSockaddr(f *testing.F) {
	f.Add(wsk.AppendSockaddr(nil, netip.MustParseAddrPort("[fe80::1%7]:443")))
	f.Add(wsk.AppendSockaddr(nil, netip.MustParseAddrPort("192.0.2.1:80")))
	f.Add(wsk.AppendSockaddr(nil, netip.MustParseAddrPort("[2001:db8::1]:443")))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := wsk.ParseSockaddr(b)
		if !ok {
			return
		}
		again, ok := wsk.ParseSockaddr(wsk.AppendSockaddr(nil, a))
		require.True(t, ok)
		require.Equal(t, a, again)
	})
}
