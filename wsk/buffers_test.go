package wsk_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// RED-Q-07, AMB-01, AMB-03, WSK-REG-09, WSK-CTL-08: every query tells the size that it needs
// of whatever buffer is too small, and writes nothing there.
func TestAShortBufferIsToldTheSize(t *testing.T) {
	w := open(t, wsk.Debug{})
	l, at := w.listen(t)
	w.redirectTo(t, at, "context")
	a := w.dial(t, destination)
	c := accept(t, l)
	u := must(t, func(p *wsk.IRP) ntstatus.Status {
		return w.Socket(wsk.AFInet, wsk.SockDgram, wsk.IPProtoUDP, wsk.DatagramSocket, nil, nil, nil, 0, p)
	})
	defer shut(t, a, c, u, l)
	addrs := wsk.AppendAddressList(nil, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")})

	type query = func(out []byte, returned *int, irp *wsk.IRP) ntstatus.Status
	control := func(s *wsk.Socket, typ wsk.ControlSocketType, code, level uint32, in []byte) query {
		return func(out []byte, returned *int, irp *wsk.IRP) ntstatus.Status {
			return s.ControlSocket(typ, code, level, in, out, returned, irp)
		}
	}
	const small, over = ntstatus.BufferTooSmall, ntstatus.BufferOverflow
	const withIRP, without = 1, 2
	for _, q := range []struct {
		name  string
		short ntstatus.Status
		how   int
		ask   query
	}{
		{"SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS", small, withIRP, control(c, wsk.Ioctl, wsk.SIOQueryWFPConnectionRedirectRecords, 0, nil)},
		{"SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT", small, withIRP, control(c, wsk.Ioctl, wsk.SIOQueryWFPConnectionRedirectContext, 0, nil)},
		{"SIO_QUERY_WFP_ALE_ENDPOINT_HANDLE", small, withIRP | without, control(c, wsk.Ioctl, wsk.SIOQueryWFPALEEndpointHandle, 0, nil)},
		{"SIO_QUERY_WFP_ALE_ENDPOINT_HANDLE of datagrams", small, withIRP | without, control(u, wsk.Ioctl, wsk.SIOQueryWFPALEEndpointHandle, 0, nil)},
		{"SIO_ADDRESS_LIST_QUERY", over, without, control(c, wsk.Ioctl, wsk.SIOAddressListQuery, 0, nil)},
		{"SIO_ADDRESS_LIST_SORT", over, withIRP | without, control(c, wsk.Ioctl, wsk.SIOAddressListSort, 0, addrs)},
		{"SIO_WSK_QUERY_IDEAL_SEND_BACKLOG", small, withIRP, control(c, wsk.Ioctl, wsk.SIOWSKQueryIdealSendBacklog, 0, nil)},
		{"SIO_WSK_QUERY_RECEIVE_BACKLOG", small, withIRP, control(c, wsk.Ioctl, wsk.SIOWSKQueryReceiveBacklog, 0, nil)},
		{"SO_ORIGINAL_DST", small, withIRP, control(c, wsk.GetOption, wsk.SOOriginalDst, wsk.SolSocket, nil)},
		{"SO_TYPE", small, withIRP, control(l, wsk.GetOption, wsk.SOType, wsk.SolSocket, nil)},
		{"SO_RCVBUF", small, withIRP, control(u, wsk.GetOption, wsk.SORcvBuf, wsk.SolSocket, nil)},
		{"SO_KEEPALIVE", small, withIRP, control(c, wsk.GetOption, wsk.SOKeepAlive, wsk.SolSocket, nil)},
		{"WSK_TRANSPORT_LIST_QUERY", over, without, func(out []byte, returned *int, irp *wsk.IRP) ntstatus.Status {
			return w.Client.Client.ControlClient(wsk.TransportListQuery, nil, out, returned, irp)
		}},
		{"WSK_CACHE_SD", over, withIRP | without, func(out []byte, returned *int, irp *wsk.IRP) ntstatus.Status {
			return w.Client.Client.ControlClient(wsk.CacheSD, append([]byte{1, 0, 0, 0x80}, make([]byte, 16)...), out, returned, irp)
		}},
	} {
		ask := func(t *testing.T, out []byte) (st ntstatus.Status, n int) {
			for how := range 2 {
				if q.how&(1<<how) == 0 {
					continue
				}
				before := bytes.Clone(out)
				if 1<<how == without {
					st = q.ask(out, &n, nil)
				} else {
					returned := -1
					io, _ := run(func(p *wsk.IRP) ntstatus.Status { return q.ask(out, &returned, p) })
					st, n = io.Status, int(io.Information)
					if returned >= 0 { // Not of ControlClient (WSK-REG-09).
						require.Equal(t, n, returned, "RED-Q-06")
					}
				}
				if !st.Ok() {
					require.Equal(t, before, out)
				}
			}
			return st, n
		}
		t.Run(q.name, func(t *testing.T) {
			st, need := ask(t, nil)
			require.Equal(t, q.short, st)
			require.Positive(t, need)
			for _, size := range []int{0, 1, need - 1} {
				st, n := ask(t, bytes.Repeat([]byte{0xa5}, size))
				require.Equal(t, q.short, st, "%d of %d bytes", size, need)
				require.Equal(t, need, n, "%d of %d bytes", size, need)
			}
			out := bytes.Repeat([]byte{0xa5}, need+1)
			st, n := ask(t, out[:need])
			require.Equal(t, ntstatus.Success, st)
			require.Equal(t, need, n)
			st, n = ask(t, out)
			require.Equal(t, ntstatus.Success, st)
			require.Equal(t, need, n)
			require.EqualValues(t, 0xa5, out[need])
		})
	}
}
