package wsk_test

import (
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A client registers, captures the provider, and makes calls with an IRP of its
// own, which it uses again. It waits for the completion routine whatever a call
// returned, and looks at the IRP only.
func Example() {
	provider := wsk.NewProvider(wsk.Options{ALE: ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: memstore.New(0)})})
	var registration wsk.Registration
	var npi wsk.ProviderNPI
	provider.Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, &registration)
	registration.CaptureProviderNPI(wsk.InfiniteWait, &npi)

	irp := wsk.AllocateIRP(1)
	call := func(what string, do func()) {
		done := make(chan struct{})
		irp.Reuse(ntstatus.Unsuccessful)
		irp.SetCompletionRoutine(func(*wsk.IRP, any) ntstatus.Status {
			close(done)
			return ntstatus.MoreProcessingRequired
		}, nil, wsk.InvokeAlways)
		do()
		<-done
		fmt.Println(what, irp.IoStatus().Status)
	}
	call("WskSocket", func() {
		npi.Client.Socket(wsk.AFInet, wsk.SockStream, wsk.IPProtoTCP, wsk.ConnectionSocket, nil, nil, nil, 0, irp)
	})
	s := irp.Socket()
	call("WskBind", func() { s.Bind(netip.MustParseAddrPort("127.0.0.1:0"), 0, irp) })
	buffer := make([]byte, 1024)
	call("SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS", func() {
		s.ControlSocket(wsk.Ioctl, wsk.SIOQueryWFPConnectionRedirectRecords, 0, nil, buffer, nil, irp)
	})
	call("WskCloseSocket", func() { s.CloseSocket(irp) })
	irp.Free()

	registration.ReleaseProviderNPI()
	registration.Deregister()
	// Output:
	// WskSocket STATUS_SUCCESS
	// WskBind STATUS_SUCCESS
	// SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS STATUS_NOT_FOUND
	// WskCloseSocket STATUS_SUCCESS
}
