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
	"encoding/binary"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"github.com/calloutd/calloutd/sdk/abi"
)

// A State is FWPS_CONNECTION_REDIRECT_STATE, relative to this callout.
type State uint8

// The redirect states.
const (
	NotRedirected              State = 0
	RedirectedBySelf           State = 1
	RedirectedByOther          State = 2
	PreviouslyRedirectedBySelf State = 3
)

// A Call is one connection to decide. Its bytes are valid during the call only.
type Call struct {
	Layer         uint16
	Protocol      uint8
	Inbound       bool
	Flags         uint32 // FWP_CONDITION_FLAG_*
	FilterID      uint64
	PID           uint32
	UID           uint32
	UIDKnown      bool
	Local, Remote netip.AddrPort
	App           string
	State         State
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

// WithRecord adds bytes that come back when the proxy's connection is decided.
func (v Verdict) WithRecord(b []byte) Verdict { v.record = b; return v }

// WithContext adds bytes for the proxy.
func (v Verdict) WithContext(b []byte) Verdict { v.context = b; return v }

// WithReason says why, for the trace.
func (v Verdict) WithReason(s string) Verdict { v.reason = s; return v }

// Hard takes the right away from lighter sublayers to change the decision.
func (v Verdict) Hard() Verdict { v.flags |= abi.FlagHard; return v }

// NoRecord redirects without a redirect handle, as for a proxy on another host.
func (v Verdict) NoRecord() Verdict { v.flags |= abi.FlagNoRecord; return v }

// A Callout decides connections.
type Callout interface{ Classify(c *Call) Verdict }

// A Configurer takes the configuration of the policy, once, before any call.
// Without it a callout takes no configuration.
type Configurer interface{ Configure(config []byte) error }

var registered Callout

// Register makes c the module's callout.
func Register(c Callout) { registered = c }

var le = binary.LittleEndian

// decode reads the request half of the block.
func decode(b []byte, c *Call) error {
	*c = Call{
		Layer: le.Uint16(b[abi.ReqLayer:]), Protocol: b[abi.ReqProtocol], Inbound: b[abi.ReqDirection] == 1,
		Flags: le.Uint32(b[abi.ReqConditionFlags:]), FilterID: le.Uint64(b[abi.ReqFilter:]),
		PID: le.Uint32(b[abi.ReqPID:]), UID: le.Uint32(b[abi.ReqUID:]), State: State(b[abi.ReqRedirectState]),
	}
	present := le.Uint32(b[abi.ReqPresent:])
	c.UIDKnown = present&abi.PresentUID != 0
	c.Local = address(b, abi.ReqLocal, abi.ReqLocalPort, present&abi.PresentLocal != 0)
	c.Remote = address(b, abi.ReqRemote, abi.ReqRemotePort, present&abi.PresentRemote != 0)
	app, err := item(b, abi.ReqApp)
	if err != nil {
		return err
	}
	c.App = string(app)
	if c.Record, err = item(b, abi.ReqRecord); err != nil {
		return err
	}
	c.ContextSize = le.Uint32(b[abi.ReqContext+4:])
	if present&abi.PresentContext != 0 {
		c.Context, err = item(b, abi.ReqContext)
	}
	return err
}

func address(b []byte, at, port int, present bool) netip.AddrPort {
	if !present {
		return netip.AddrPort{}
	}
	a := netip.AddrFrom16([16]byte(b[at : at+16]))
	if b[abi.ReqIPVersion] == 4 {
		a = a.Unmap()
	}
	return netip.AddrPortFrom(a, le.Uint16(b[port:]))
}

func item(b []byte, field int) ([]byte, error) {
	off, n := uint64(le.Uint32(b[field:])), uint64(le.Uint32(b[field+4:]))
	if n == 0 {
		return nil, nil
	}
	if size := uint64(le.Uint32(b[abi.ReqSize:])); off < abi.RequestHeader || off+n > min(size, abi.ResponseOffset) {
		return nil, fmt.Errorf("request item at %d of %d bytes is outside the request", off, n)
	}
	return b[off : off+n], nil
}

// encode writes the response half of the block and returns the packed answer.
func encode(b []byte, v Verdict) uint64 {
	r := b[abi.ResponseOffset:abi.BlockSize]
	clear(r[:abi.ResponseHeader])
	if v.action == abi.ActionInvalid {
		v = guestError("the callout gave the zero Verdict")
	}
	switch {
	case len(v.record) > abi.MaxRecord:
		v = guestError(fmt.Sprintf("the record has %d bytes, the limit is %d", len(v.record), abi.MaxRecord))
	case len(v.context) > abi.MaxContext:
		v = guestError(fmt.Sprintf("the context has %d bytes, the limit is %d", len(v.context), abi.MaxContext))
	}
	v.reason = cut(v.reason, min(abi.MaxReason, len(r)-abi.ResponseHeader-len(v.record)-len(v.context)))
	at := abi.ResponseHeader
	tail := func(off, length int, item []byte) {
		copy(r[at:], item)
		le.PutUint32(r[off:], uint32(abi.ResponseOffset+at))
		le.PutUint32(r[length:], uint32(len(item)))
		at += len(item)
	}
	le.PutUint32(r[abi.RespAction:], uint32(v.action))
	le.PutUint32(r[abi.RespFlags:], uint32(v.flags))
	if v.action == abi.ActionRedirect {
		le.PutUint16(r[abi.RespPort:], v.to.Port())
		r[abi.RespIPVersion] = 6
		if v.to.Addr().Is4() {
			r[abi.RespIPVersion] = 4
		}
		if v.to.IsValid() {
			a := v.to.Addr().As16()
			copy(r[abi.RespAddress:], a[:])
		}
		le.PutUint32(r[abi.RespTargetPID:], v.pid)
		tail(abi.RespRecordOff, abi.RespRecordLen, v.record)
		tail(abi.RespContextOff, abi.RespContextLen, v.context)
	}
	tail(abi.RespReason, abi.RespReason+4, []byte(v.reason))
	return uint64(v.action) | uint64(v.to.Port())<<abi.PackPort | uint64(len(v.record))<<abi.PackRecord | uint64(v.flags)<<abi.PackFlags
}

// cut shortens a text to n bytes and keeps its last character whole.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func guestError(reason string) Verdict { return Verdict{action: abi.ActionGuestError, reason: reason} }

// classify answers the request in b. A panic is an error, which blocks.
func classify(co Callout, b []byte) (packed uint64) {
	defer func() {
		if r := recover(); r != nil {
			packed = encode(b, guestError(fmt.Sprintf("panic: %v", r)))
		}
	}()
	var c Call
	if err := decode(b, &c); err != nil {
		return encode(b, guestError(err.Error()))
	}
	if co == nil {
		return encode(b, guestError("no callout is registered: call callout.Register in init"))
	}
	return encode(b, co.Classify(&c))
}

var pending []byte

// configure takes one chunk of the configuration; the last one ends it.
func configure(co Callout, b []byte, arg uint32) int32 {
	n := arg &^ abi.InitMore
	if n > abi.InitChunk {
		return -1
	}
	pending = append(pending, b[:n]...)
	if arg&abi.InitMore != 0 {
		return 0
	}
	config := pending
	pending = nil
	cf, ok := co.(Configurer)
	if !ok {
		if len(config) == 0 {
			return 0
		}
		encode(b, guestError("this callout takes no configuration"))
		return -1
	}
	if err := cf.Configure(config); err != nil {
		encode(b, guestError(err.Error()))
		return -1
	}
	return 0
}
