package callout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"github.com/calloutd/calloutd/sdk/abi"
)

var le = binary.LittleEndian

var errOutside = errors.New("a request item is outside the request")

// texts remembers strings that were seen: the same programs connect again and
// again, and a garbage collection costs more than a look-up.
var texts = map[string]string{}

const maxTexts = 256

func text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, known := texts[string(b)]; known {
		return s
	}
	if len(texts) >= maxTexts {
		clear(texts)
	}
	s := string(b)
	texts[s] = s
	return s
}

// decode reads the request half of the block.
func decode(b []byte, c *Call) error {
	_ = b[abi.RequestHeader-1]
	present := le.Uint32(b[abi.ReqPresent:])
	*c = Call{
		Layer: le.Uint16(b[abi.ReqLayer:]), Protocol: b[abi.ReqProtocol], Inbound: b[abi.ReqDirection] == 1,
		Flags: le.Uint32(b[abi.ReqConditionFlags:]), Connection: le.Uint64(b[abi.ReqConnection:]),
		FilterID: le.Uint64(b[abi.ReqFilter:]), Present: present, PID: le.Uint32(b[abi.ReqPID:]),
		UID: le.Uint32(b[abi.ReqUID:]), UIDKnown: present&abi.PresentUID != 0, IPVersion: b[abi.ReqIPVersion],
		Local: address(b, abi.ReqLocal, abi.ReqLocalPort), Remote: address(b, abi.ReqRemote, abi.ReqRemotePort),
		State: State(b[abi.ReqRedirectState]), Interface: le.Uint32(b[abi.ReqInterface:]), Monotonic: le.Uint64(b[abi.ReqMonotonic:]),
		ContextSize: le.Uint32(b[abi.ReqContext+4:]),
	}
	if present&abi.PresentLocal == 0 {
		c.Local = netip.AddrPort{}
	}
	if present&abi.PresentRemote == 0 {
		c.Remote = netip.AddrPort{}
	}
	return decodeItems(b, c)
}

func decodeItems(b []byte, c *Call) error {
	app, ok := item(b, abi.ReqApp)
	user, ok2 := item(b, abi.ReqUser)
	record, ok3 := item(b, abi.ReqRecord)
	context, ok4 := item(b, abi.ReqContext)
	host, ok5 := within(b, uint32(le.Uint16(b[abi.ReqHostname:])), uint32(le.Uint16(b[abi.ReqHostname+2:])))
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return errOutside
	}
	c.App, c.User, c.Hostname, c.Record, c.Context = text(app), text(user), text(host), record, context
	return nil
}

// address reads one; version 4 ones are unmapped.
func address(b []byte, at, port int) netip.AddrPort {
	var a netip.Addr
	if b[abi.ReqIPVersion] == 4 {
		a = netip.AddrFrom4([4]byte(b[at+12 : at+16]))
	} else {
		a = netip.AddrFrom16([16]byte(b[at : at+16]))
	}
	return netip.AddrPortFrom(a, le.Uint16(b[port:]))
}

func item(b []byte, field int) ([]byte, bool) {
	return within(b, le.Uint32(b[field:]), le.Uint32(b[field+4:]))
}

// within is an item of the request, false if it is outside. Offset 0 is nothing,
// which may have a length.
func within(b []byte, off, n uint32) ([]byte, bool) {
	if n == 0 || off == 0 {
		return nil, true
	}
	if off < abi.RequestHeader || uint64(off)+uint64(n) > abi.ResponseOffset {
		return nil, false
	}
	return b[off : off+n], true
}

// encode writes the response half of the block and returns the packed answer.
// The host has zeroed the header.
func encode(b []byte, v *Verdict) uint64 {
	if failure := v.check(); failure != "" {
		*v = Error(failure)
	}
	packed := uint64(v.action) | uint64(v.flags)<<abi.PackFlags
	if v.action != abi.ActionRedirect && v.reason == "" && v.cookie == 0 {
		return packed
	}
	r := b[abi.ResponseOffset:abi.BlockSize]
	le.PutUint32(r[abi.RespAction:], uint32(v.action))
	le.PutUint32(r[abi.RespFlags:], uint32(v.flags))
	le.PutUint64(r[abi.RespCookie:], v.cookie)
	at := abi.ResponseHeader
	if v.action == abi.ActionRedirect {
		at = encodeRedirect(r, v)
		packed |= uint64(v.to.Port())<<abi.PackPort | uint64(len(v.record))<<abi.PackRecord
	}
	put(r, at, abi.RespReason, abi.RespReason+4, cut(v.reason, min(abi.MaxReason, len(r)-at)))
	return packed
}

// check says what is wrong with a verdict.
func (v *Verdict) check() string {
	switch {
	case v.action == abi.ActionInvalid:
		return "the callout gave no verdict"
	case len(v.record) > abi.MaxRecord:
		return fmt.Sprintf("the record is over the limit of %d bytes", abi.MaxRecord)
	case len(v.context) > abi.MaxContext:
		return fmt.Sprintf("the context is over the limit of %d bytes", abi.MaxContext)
	}
	return ""
}

func encodeRedirect(r []byte, v *Verdict) (at int) {
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
	at = put(r, abi.ResponseHeader, abi.RespRecordOff, abi.RespRecordLen, v.record)
	return put(r, at, abi.RespContextOff, abi.RespContextLen, v.context)
}

// put copies an item to the response and says where it is.
func put[T string | []byte](r []byte, at, off, length int, item T) int {
	copy(r[at:], item)
	le.PutUint32(r[off:], uint32(abi.ResponseOffset+at))
	le.PutUint32(r[length:], uint32(len(item)))
	return at + len(item)
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

// refuse writes why something is refused and returns the code for it.
func refuse(b []byte, reason string) int32 {
	clear(b[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
	v := Error(reason)
	encode(b, &v)
	return -1
}

// The one call and verdict of an instance: decisions do not allocate.
var (
	call    Call
	verdict Verdict
)

// classify answers the request in b. A panic is an error, which blocks.
func classify(co Callout, b []byte) (packed uint64) {
	defer func() {
		if r := recover(); r != nil {
			clear(b[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
			verdict = Error(fmt.Sprintf("panic: %v", r))
			packed = encode(b, &verdict)
		}
	}()
	if err := decode(b, &call); err != nil {
		verdict = Error(err.Error())
	} else if co == nil {
		verdict = Error("no callout is registered: call callout.Register in init")
	} else {
		verdict = co.Classify(&call)
	}
	return encode(b, &verdict)
}

var pending []byte

// configure takes one chunk of the configuration; the last one ends it.
func configure(co Callout, b []byte, arg uint32) int32 {
	n := arg &^ abi.InitMore
	if n > abi.InitChunk {
		return refuse(b, "the configuration is over the limit")
	}
	granted = le.Uint32(b[abi.ResponseOffset+abi.InitGranted:])
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
		return refuse(b, "this callout takes no configuration")
	}
	if err := cf.Configure(config); err != nil {
		return refuse(b, err.Error())
	}
	return 0
}

func notify(co Callout, b []byte, kind uint32) int32 {
	n, ok := co.(Notifier)
	if !ok {
		return 0
	}
	e := Event{Kind: kind, Layer: le.Uint16(b[abi.ReqLayer:]), FilterID: le.Uint64(b[abi.ReqFilter:]),
		Cookie: le.Uint64(b[abi.ResponseOffset+abi.RespCookie:])}
	if err := n.Notify(e); err != nil {
		return refuse(b, err.Error())
	}
	return 0
}

func capabilities(co Callout) uint64 {
	r, ok := co.(Requester)
	if !ok {
		return 0
	}
	required, optional := r.Capabilities()
	return uint64(required) | uint64(optional)<<32
}
