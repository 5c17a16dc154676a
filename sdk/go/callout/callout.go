// Package callout is the SDK for callouts written in Go: a callout gets a Call
// and answers with Permit, Block, Continue or Redirect.
//
// A callout is a package main that registers itself in init, since a module
// built with -buildmode=c-shared does not run main:
//
//	func init() { callout.Register(policy{}) }
//	func main() {}
//
// Build it with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared.
package callout

import (
	"net/netip"
	"strconv"

	"github.com/calloutd/calloutd/sdk/abi"
)

// A State is FWPS_CONNECTION_REDIRECT_STATE, relative to this callout.
type State uint8

// The redirect states.
const (
	NotRedirected              State = abi.StateNotRedirected
	RedirectedBySelf           State = abi.StateRedirectedBySelf
	RedirectedByOther          State = abi.StateRedirectedByOther
	PreviouslyRedirectedBySelf State = abi.StatePreviouslyRedirectedBySelf
)

// A Call is one connection to decide. Neither it nor its bytes may be kept: they
// are valid during the call only.
type Call struct {
	Layer         uint16 // abi.Layer*
	Protocol      uint8
	Inbound       bool
	Flags         uint32 // abi.ConditionFlag*
	Connection    uint64
	FilterID      uint64
	Present       uint32 // abi.Present*: which of the fields below are known
	PID           uint32
	UID           uint32
	UIDKnown      bool
	IPVersion     uint8 // 4 or 6: v4-mapped addresses are 6
	Local, Remote netip.AddrPort
	App           string
	User          string
	Hostname      string // what Remote is called, where a proxy of kind dns or peek has learned it
	State         State
	Interface     uint32 // of a Remote of one link, as fe80::/10 are: that link
	Monotonic     uint64 // nanoseconds
	Record        []byte // what this callout once emitted for the connection
	// Context is what it emitted for the proxy: nil, with ContextSize not zero,
	// when the context did not fit the request.
	Context     []byte
	ContextSize uint32
}

// A Verdict is an answer. The zero Verdict is an error and blocks.
type Verdict struct {
	action          uint16
	flags           uint16
	to              netip.AddrPort
	pid             uint32
	cookie          uint64
	record, context []byte
	reason          string
}

// Permit lets the connection pass.
func Permit() Verdict { return Verdict{action: abi.ActionPermit} }

// Block refuses it; reason is what the user reads.
func Block(reason string) Verdict { return Verdict{action: abi.ActionBlock, reason: reason} }

// Continue leaves the decision to the next filter.
func Continue() Verdict { return Verdict{action: abi.ActionContinue} }

// Redirect sends it to a proxy: pid is the proxy's process, which must not be
// zero for a proxy on this host.
func Redirect(to netip.AddrPort, pid uint32) Verdict {
	return Verdict{action: abi.ActionRedirect, to: to, pid: pid}
}

// Error says that the callout failed. The connection is blocked.
func Error(reason string) Verdict { return Verdict{action: abi.ActionGuestError, reason: reason} }

// WithRecord adds bytes that come back when the proxy's connection is decided.
func (v Verdict) WithRecord(b []byte) Verdict { v.record = b; return v }

// WithContext adds bytes for the proxy.
func (v Verdict) WithContext(b []byte) Verdict { v.context = b; return v }

// WithReason says why, for the trace.
func (v Verdict) WithReason(s string) Verdict { v.reason = s; return v }

// WithCookie makes a number, not zero, the context of an established flow: it
// comes back in the event FlowDeleted.
func (v Verdict) WithCookie(n uint64) Verdict { v.cookie = n; return v }

// Hard takes the right away from lighter sublayers to change the decision.
func (v Verdict) Hard() Verdict { v.flags |= abi.FlagHard; return v }

// KeepContext redirects with the context that the connection has.
func (v Verdict) KeepContext() Verdict { v.flags |= abi.FlagKeepContext; return v }

// NoRecord redirects without a redirect handle, as for a proxy on another host.
func (v Verdict) NoRecord() Verdict { v.flags |= abi.FlagNoRecord; return v }

// Cacheable says that equal inputs get the same answer.
func (v Verdict) Cacheable() Verdict { v.flags |= abi.FlagCacheable; return v }

// BySelf reports whether this callout has redirected the connection, which is then the
// proxy's own: it must not be sent to the proxy again.
func (c *Call) BySelf() bool {
	return c.State == RedirectedBySelf || c.State == PreviouslyRedirectedBySelf
}

// RemoteOnLink is Remote as somebody can connect to it: an address of one link has the zone
// that says which. Remote has none, as no prefix contains an address with a zone.
func (c *Call) RemoteOnLink() netip.AddrPort {
	a := c.Remote.Addr()
	if c.Interface == 0 || a.Is4In6() || !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast() {
		return c.Remote
	}
	return netip.AddrPortFrom(a.WithZone(strconv.FormatUint(uint64(c.Interface), 10)), c.Remote.Port())
}

// A Callout decides connections.
type Callout interface{ Classify(c *Call) Verdict }

// A Configurer takes the configuration of the policy, once, before any call.
// Without it a callout takes no configuration.
type Configurer interface{ Configure(config []byte) error }

// A Requester asks for capabilities (abi.Cap*): those it cannot do without, and
// those it can. Without it a callout has none.
type Requester interface {
	Capabilities() (required, optional uint32)
}

// Events that a Notifier hears of.
const (
	FilterAdded     = abi.EventFilterAdded
	FilterDeleted   = abi.EventFilterDeleted
	FlowEstablished = abi.EventFlowEstablished // a connection that the callout permitted
	FlowDeleted     = abi.EventFlowDeleted
	RedirectDone    = abi.EventRedirectDone // a connection was sent to where the callout redirected it
)

// An Event is what a Notifier hears of.
type Event struct {
	Kind       uint32
	Layer      uint16
	FilterID   uint64 // of an event about a filter, else for which the callout decided
	Connection uint64 // of FlowEstablished and RedirectDone, as of the Call
	Cookie     uint64 // of a flow
}

// A Notifier hears of filters, flows and redirects. An error refuses a filter that is added.
type Notifier interface{ Notify(e Event) error }

var registered Callout

// Register makes c the module's callout.
func Register(c Callout) { registered = c }

var granted uint32

// Granted are the capabilities that the host granted, known from Configure on.
func Granted() uint32 { return granted }
