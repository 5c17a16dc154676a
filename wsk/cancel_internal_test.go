package wsk

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// IRP-10: a cancel that meets the completion of a WskSocketConnect comes too late, and
// does nothing to the socket.
func TestCancelThatIsTooLateLeavesTheSocketAsItIs(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	e := host.New(host.Options{})
	c := newClient(NewProvider(Options{ALE: ale.New(ale.Options{Classifier: e, Store: memstore.New(0)})}))
	c.capture()
	done := make(chan struct{}, 1)
	wait := func(call func(*IRP) ntstatus.Status) *IRP {
		irp := AllocateIRP(1)
		irp.SetCompletionRoutine(func(*IRP, any) ntstatus.Status { done <- struct{}{}; return ntstatus.MoreProcessingRequired }, nil, InvokeAlways)
		call(irp)
		<-done
		require.Equal(t, ntstatus.Success, irp.IoStatus().Status)
		return irp
	}

	irp := make(chan *IRP, 1)
	var cancel func() // what IRP.Cancel has in hand when the call ends
	_, _, err = e.RegisterCallout("meanwhile", fwps.CalloutFunc(func(_ context.Context, _ *fwps.Call, v *fwps.Verdict) error {
		p := <-irp
		p.mu.Lock()
		cancel = p.cancelRoutine
		p.mu.Unlock()
		v.Action = fwp.ActionPermit
		return nil
	}))
	require.NoError(t, err)
	require.NoError(t, e.Update(func(p *fwpm.Policy) error {
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: "meanwhile", Name: "meanwhile"})
		p.Filters = append(p.Filters, fwpm.Filter{ID: 1, Name: "meanwhile", Layer: fwpm.LayerALEAuthConnectV4, Action: fwp.ActionCalloutTerminating, Callout: "meanwhile"})
		return nil
	}))
	s := wait(func(p *IRP) ntstatus.Status {
		irp <- p
		return c.SocketConnect(SockStream, IPProtoTCP, netip.MustParseAddrPort("127.0.0.1:0"), ln.Addr().(*net.TCPAddr).AddrPort(), 0, nil, nil, nil, 0, p)
	}).Socket()
	require.NotNil(t, cancel)
	cancel()
	require.NoError(t, s.ctx.Err())
	wait(s.CloseSocket)
}
