// Package redirect holds redirect records and answers what they say about a
// connection. Records belong to sockets and travel with them.
package redirect

import (
	"net/netip"
)

// A Handle names one redirector: what FwpsRedirectHandleCreate0 returns. Two
// handles of one provider are different redirectors (RH-03). Zero is no handle.
type Handle uint64

// A Hop is one local redirect of a connection.
type Hop struct {
	Serial   uint64 // Unique in this engine; names the hop in a Store.
	Handle   Handle
	Provider string // For diagnostics only (RH-04).
	FilterID uint64
	Callout  string // The callout that redirected.

	Original  netip.AddrPort // Where the application wanted to go.
	Target    netip.AddrPort // Where the callout sent it.
	TargetPID uint32         // localRedirectTargetPID

	ProcessID uint32     // The process that called connect.
	AppID     string     // Its program.
	Client    netip.Addr // The host that connects, where that is another one, of which no process is known.

	// Record is given back to the callout when the proxy's own connection is
	// classified. Context is for the proxy. Both are at most MaxBlob bytes, nil
	// when the callout gave none, and must not be modified.
	Record, Context []byte
}

// MaxBlob is the limit of a hop's record and of its context, in bytes.
const MaxBlob = 4096

// MaxHops is the longest chain of redirects a connection can have (AMB-16).
const MaxHops = 16

// Records is the history of a connection, oldest hop first. It is not modified
// once made.
type Records []*Hop

// State is FWPS_CONNECTION_REDIRECT_STATE.
type State uint8

// The states of RS-02.
const (
	NotRedirected              State = 0
	RedirectedBySelf           State = 1
	RedirectedByOther          State = 2
	PreviouslyRedirectedBySelf State = 3
)

func (s State) String() string {
	switch s {
	case NotRedirected:
		return "not-redirected"
	case RedirectedBySelf:
		return "redirected-by-self"
	case RedirectedByOther:
		return "redirected-by-other"
	case PreviouslyRedirectedBySelf:
		return "previously-redirected-by-self"
	}
	return "unknown-redirect-state"
}

// State is FwpsQueryConnectionRedirectState0: a pure function of the records
// and the calling handle (RS-03). The hop is the newest one of h, nil unless
// the state is by-self or previously-by-self (RS-04).
func (rs Records) State(h Handle) (State, *Hop) {
	if len(rs) == 0 {
		return NotRedirected, nil
	}
	for i := len(rs) - 1; i >= 0; i-- {
		if rs[i].Handle != h {
			continue
		}
		if i == len(rs)-1 {
			return RedirectedBySelf, rs[i]
		}
		return PreviouslyRedirectedBySelf, rs[i]
	}
	return RedirectedByOther, nil
}

// Last returns the newest hop, nil if there is none.
func (rs Records) Last() *Hop {
	if len(rs) == 0 {
		return nil
	}
	return rs[len(rs)-1]
}

// With returns rs and one more hop. It never shares its backing array with rs.
func (rs Records) With(h *Hop) Records {
	return append(rs[:len(rs):len(rs)], h)
}
