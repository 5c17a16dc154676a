package wsk

import (
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// The WFP control codes of mstcpip.h (IOC-01). All have IOC_IN, also those that
// only return data: the direction is not in the bits (IOC-02).
//
// The queries are asked of a socket that accepted a connection and answer in bytes:
// STATUS_NOT_FOUND if it was not redirected here, or the callout left no context;
// STATUS_BUFFER_TOO_SMALL with the size that is needed and nothing written (RED-Q-07),
// also for no buffer; STATUS_ACCESS_DENIED if Options.StrictQueries leaves them to
// another process. Records are set, whole and as they were returned, on a socket that
// is not connected yet (RED-SET-04), later without effect (SC-42); what is no record of
// this engine is STATUS_ACCESS_DENIED. A closed socket has STATUS_FILE_FORCED_CLOSED.
const (
	SIOQueryWFPConnectionRedirectRecords uint32 = 0x980000DC // SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
	SIOQueryWFPConnectionRedirectContext uint32 = 0x980000DD // SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
	SIOSetWFPConnectionRedirectRecords   uint32 = 0x980000DE // SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS
	SIOQueryWFPALEEndpointHandle         uint32 = 0x580000CD // SIO_QUERY_WFP_ALE_ENDPOINT_HANDLE
)

// queryRedirect answers the two queries (spec 8.2). Who may ask comes first,
// then whether there is anything, then whether it fits.
func (s *Socket) queryRedirect(code uint32, _, out []byte) (ntstatus.Status, int) {
	if !s.entitled() {
		return ntstatus.AccessDenied, 0
	}
	data, no := RedirectAnswer(code, s.hops(), s.seal)
	if no != nil {
		return no.Status, 0
	}
	return answer(data, out)
}

// entitled tells whether the socket's owner may ask about the redirects of its
// connection (AMB-06).
func (s *Socket) entitled() bool {
	hop := s.hops().Last()
	return hop == nil || !s.client.provider.opts.StrictQueries || s.owner.ID == hop.TargetPID
}

// A Refusal is why a query about redirects has no answer.
type Refusal struct {
	Status ntstatus.Status
	Rule   string // of the specification
	Why    string
}

var (
	notRedirected = &Refusal{ntstatus.NotFound, "RED-Q-11", "the connection was not redirected here"}
	noContext     = &Refusal{ntstatus.NotFound, "AMB-11", "the callout left no context"}
)

// RedirectAnswer is what the two queries are about on a socket that accepted a
// connection with these records: their sealed form, or the newest hop's context
// (AMB-17). Whoever has connections and no sockets asks it, too: the service for
// other programs, and who describes them. A Refusal is shared, and not to be changed.
func RedirectAnswer(code uint32, rs redirect.Records, seal func() ([]byte, error)) ([]byte, *Refusal) {
	hop := rs.Last()
	switch {
	case hop == nil:
		return nil, notRedirected
	case code == SIOQueryWFPConnectionRedirectRecords:
		sealed, err := seal()
		if err != nil {
			return nil, &Refusal{ntstatus.IntegerOverflow, "RED-Q-13", err.Error()}
		}
		return sealed, nil
	case len(hop.Context) == 0:
		return nil, noContext
	}
	return hop.Context, nil
}

// answer copies data out if it fits, else tells its size (RED-Q-07). A probe,
// an out of no length, is answered like that too (AMB-01, AMB-12).
func answer(data, out []byte) (ntstatus.Status, int) {
	if len(out) < len(data) {
		return ntstatus.BufferTooSmall, len(data)
	}
	return ntstatus.Success, copy(out, data)
}

// setRedirect puts records on a socket that will connect (RED-SET-04).
func (s *Socket) setRedirect(_ uint32, in, _ []byte) (ntstatus.Status, int) {
	may := s.client.provider.opts.MaySetRecords
	switch {
	case len(in) == 0:
		return ntstatus.InvalidParameter, 0 // SC-40
	case may != nil && !may(s.owner):
		return ntstatus.AccessDenied, 0 // SC-39
	}
	return s.setRecords(in), 0
}
