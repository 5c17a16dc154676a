package remote

import (
	"context"
	"errors"
	"sync"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An accepted socket went through AUTH_RECV_ACCEPT when it was first shown.
type accepted struct {
	tcpSocket

	mu      sync.Mutex // one goes through the layers at a time
	flow    *ale.Flow
	refused error  // for good: its records are gone
	sealed  []byte // once asked for
	gone    bool
}

// authorize takes the connection through AUTH_RECV_ACCEPT, once, and again when
// the policy has changed (ALE-LAY-12). Without error and flow, a is of no use any
// more.
func (a *accepted) authorize(ctx context.Context, e *ale.Enforcer, p Peer) (*ale.Flow, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.gone:
		return nil, nil
	case a.refused != nil:
		return nil, a.refused
	case a.flow != nil:
		return a.flow, a.flow.Reauthorize(ctx)
	}
	a.flow, a.refused = e.Accept(ctx, fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: a.local, Remote: a.remote, EndpointID: a.cookie,
		ProcessID: p.PID, AppID: p.AppID, UserID: p.UID, UserKnown: true})
	return a.flow, a.refused
}

func (a *accepted) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
	if a.flow != nil {
		a.flow.Close()
	}
}

// query answers the three queries (spec 8.2) about a socket with a flow. The original
// destination is the records', but for its form.
func (a *accepted) query(op operation, e *ale.Enforcer) ([]byte, error) {
	code, seal := wsk.SIOQueryWFPConnectionRedirectRecords, func() ([]byte, error) { return a.seal(e) }
	switch op {
	case opQueryContext:
		code = wsk.SIOQueryWFPConnectionRedirectContext
	case opQueryOriginal:
		seal = func() ([]byte, error) { return appendAddress(nil, a.flow.Records.Last().Original), nil }
	}
	data, no := wsk.RedirectAnswer(code, a.flow.Records, seal)
	if no != nil {
		return nil, &StatusError{Status: no.Status, Rule: no.Rule, Why: no.Why}
	}
	return data, nil
}

// seal is the sealed form of the flow's records, the same each time (RED-Q-10).
func (a *accepted) seal(e *ale.Enforcer) (_ []byte, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sealed == nil {
		a.sealed, err = e.Seal(a.flow.Records)
	}
	return a.sealed, err
}

// failure is the status that an error of the layers ends a request with.
func failure(err error) error {
	var b *ale.BlockedError
	switch {
	case errors.As(err, &b):
		return &StatusError{Status: ntstatus.AccessDenied, Rule: b.Rule, Why: b.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &StatusError{Status: ntstatus.IOTimeout, Why: "the decision took too long"}
	case errors.Is(err, context.Canceled):
		return errEnds
	}
	return &StatusError{Status: ntstatus.Unsuccessful, Why: err.Error()}
}
