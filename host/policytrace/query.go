package policytrace

import (
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// controls are the codes that a Reader knows.
var controls = map[uint32]string{
	wsk.SIOQueryWFPConnectionRedirectRecords: "SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS",
	wsk.SIOQueryWFPConnectionRedirectContext: "SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT",
	wsk.SIOSetWFPConnectionRedirectRecords:   "SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS",
}

// Query is what Winsock Kernel answers a proxy about a connection that it accepted:
// one of the two queries (spec 8.2).
func (r Reader) Query(code uint32, e *ale.Enforcer, f *ale.Flow) (Event, string) {
	status := ntstatus.Success
	data, no := wsk.RedirectAnswer(code, f.Records, func() ([]byte, error) { return e.Seal(f.Records) })
	if no != nil {
		status = no.Status
	}
	ev := Event{Event: "query", Query: controls[code], Status: status.Error(), Proxy: r.Policy.ProxyID(f.Local), Original: addr(f.Original), Data: newBlob(data)}
	text := fmt.Sprintf("asks %s: %s", ev.Query, ev.Status)
	if code == wsk.SIOQueryWFPConnectionRedirectContext {
		return ev, text + ", " + ev.Data.String()
	}
	ev.Records = r.records(f.Records)
	return ev, text + fmt.Sprintf(", %d bytes, redirects: %d", len(data), len(f.Records))
}

// Set is a proxy's own socket, which gets the records.
func (r Reader) Set(rs redirect.Records, to netip.AddrPort) (Event, string) {
	ev := Event{Event: "set", Query: controls[wsk.SIOSetWFPConnectionRedirectRecords], Status: ntstatus.Success.Error(), To: addr(to), Records: r.records(rs)}
	return ev, fmt.Sprintf("%s on its own socket to %s", ev.Query, to)
}
