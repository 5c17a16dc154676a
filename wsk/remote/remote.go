// Package remote answers proxies that are other programs: the redirect control
// codes over a Unix socket (Linux).
//
// The credential is possession. A client passes the accepted socket itself, and
// the answer is about that socket, whatever the client says: the kernel is asked
// which it is. README.md has the wire format.
package remote

import (
	"fmt"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A Peer is the process at the other end of a client's connection, as it was when
// it connected.
type Peer struct {
	PID, UID, GID uint32
	AppID         string // The path of its program; empty if that cannot be read.
}

// Options configure a Service.
type Options struct {
	ALE *ale.Enforcer // Required.
	// Allow tells who may be a client. Optional: the user of this process, and root.
	Allow func(Peer) bool
	// MaySetRecords tells who may set redirect records, the administrator's right
	// of AMB-06. Optional: every client.
	MaySetRecords func(Peer) bool
	// StrictQueries lets a client query only what was redirected to its process
	// (AMB-06). Off, as products exist that put a number of nobody there.
	StrictQueries bool

	// MaxClients bounds the connections of clients; one user has half of them.
	// Optional: 256.
	MaxClients int
	// MaxSockets bounds the sockets that are known at a time, and those that records were
	// set on, of which one user has half. Optional: 16384.
	MaxSockets int
	// Rate is how many requests a second a user may make; what comes faster waits.
	// Optional: 50000.
	Rate int
	// Idle is after how long a connection is closed on which nothing is asked, and
	// Timeout how long an answer may take, with what the callouts need for it.
	// Optional: a minute, and ten seconds.
	Idle, Timeout time.Duration
	// Sweep is how often the sockets are looked for that were closed. Optional:
	// two seconds.
	Sweep time.Duration
	// Logf hears of clients that were refused. Optional.
	Logf func(format string, args ...any)
}

func (o *Options) defaults() {
	if o.ALE == nil {
		panic("remote: Options.ALE is required")
	}
	if o.MaySetRecords == nil {
		o.MaySetRecords = func(Peer) bool { return true }
	}
	number(&o.MaxClients, 256)
	number(&o.MaxSockets, 16384)
	number(&o.Rate, 50000)
	number(&o.Idle, time.Minute)
	number(&o.Timeout, 10*time.Second)
	number(&o.Sweep, 2*time.Second)
}

func number[N int | time.Duration](n *N, otherwise N) {
	if *n <= 0 {
		*n = otherwise
	}
}

// Stats are figures of a Service.
type Stats struct {
	Clients  int    `json:"clients"`  // connected now
	Sockets  int    `json:"sockets"`  // accepted sockets that are known
	Outbound int    `json:"outbound"` // sockets with records that were set
	Requests uint64 `json:"requests"`
	Refused  uint64 `json:"refused"` // answered with a failure other than STATUS_NOT_FOUND
}

// A StatusError is a request that ended with a failure.
type StatusError struct {
	Op     string
	Status ntstatus.Status
	Rule   string // of the specification; empty if none is to be cited
	Why    string
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("remote: %s: %v", e.Op, e.Status)
	if e.Rule != "" {
		s += " (" + e.Rule + ")"
	}
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

func (e *StatusError) Unwrap() error { return e.Status }
