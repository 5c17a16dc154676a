package callout

import (
	"fmt"
	"net/netip"
	"unicode/utf8"
	"unsafe"

	"github.com/calloutd/calloutd/sdk/abi"
)

// A request and a response lie in the block as they are: the compiler makes bytes
// of encoding/binary one by one. Guests are little endian; natively, tests run on
// machines that are.
type request struct {
	size                       uint32
	minor, layer               uint16
	present, flags             uint32
	connection, filter         uint64
	pid, uid                   uint32
	version, protocol          uint8
	localPort, remotePort      uint16
	state, direction           uint8
	local, remote              [16]byte
	app, user, record, context span
	monotonic                  uint64
	iface                      uint32
	hostname                   [2]uint16
}

type response struct {
	action, flags         uint32
	port                  uint16
	version               uint8
	pid                   uint32
	address               [16]byte
	recordLen, contextLen uint32
	recordOff, contextOff uint32
	reason                span
	cookie                uint64
}

// A span is where an item is in the block.
type span struct{ off, n uint32 }

func requestOf(b []byte) *request {
	_ = b[abi.RequestHeader-1]
	return (*request)(unsafe.Pointer(unsafe.SliceData(b)))
}

func responseOf(b []byte) *response {
	_ = b[abi.ResponseOffset+abi.ResponseHeader-1]
	return (*response)(unsafe.Pointer(&b[abi.ResponseOffset]))
}

const errOutside = "a request item is outside the request"

// texts remembers strings that were seen: the same programs connect again and
// again, and a garbage collection costs more than a look-up.
type texts struct {
	last string
	seen map[string]string
}

var apps, users, hosts texts

const maxTexts = 256

func (t *texts) of(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if t.last == string(b) {
		return t.last
	}
	s, known := t.seen[string(b)]
	if !known {
		if t.seen == nil || len(t.seen) >= maxTexts {
			t.seen = map[string]string{}
		}
		s = string(b)
		t.seen[s] = s
	}
	t.last = s
	return s
}

// decode reads the request half of the block. It returns what is wrong with it.
func decode(b []byte, c *Call) string {
	q := requestOf(b)
	c.Layer, c.Protocol, c.Inbound = q.layer, q.protocol, q.direction == 1
	c.Flags, c.Connection, c.FilterID, c.Present = q.flags, q.connection, q.filter, q.present
	c.PID, c.UID, c.UIDKnown = q.pid, q.uid, q.present&abi.PresentUID != 0
	c.IPVersion, c.State, c.Interface, c.Monotonic = q.version, State(q.state), q.iface, q.monotonic
	c.Local, c.Remote = netip.AddrPort{}, netip.AddrPort{}
	if q.present&abi.PresentLocal != 0 {
		c.Local = address(q.version, &q.local, q.localPort)
	}
	if q.present&abi.PresentRemote != 0 {
		c.Remote = address(q.version, &q.remote, q.remotePort)
	}
	app, ok := within(b, q.app)
	user, ok2 := within(b, q.user)
	host, ok3 := within(b, span{uint32(q.hostname[0]), uint32(q.hostname[1])})
	record, ok4 := within(b, q.record)
	context, ok5 := within(b, q.context)
	if !ok || !ok2 || !ok3 || !ok4 || !ok5 {
		return errOutside
	}
	c.App, c.User, c.Hostname = apps.of(app), users.of(user), hosts.of(host)
	c.Record, c.Context, c.ContextSize = record, context, q.context.n
	return ""
}

// address reads one; version 4 ones are unmapped.
func address(version uint8, a *[16]byte, port uint16) netip.AddrPort {
	if version == 4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[12:])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(*a), port)
}

// within is an item of the request, false if it is outside. Offset 0 is nothing,
// which may have a length.
func within(b []byte, s span) ([]byte, bool) {
	if s.n == 0 || s.off == 0 {
		return nil, true
	}
	if s.off < abi.RequestHeader || uint64(s.off)+uint64(s.n) > abi.ResponseOffset {
		return nil, false
	}
	return b[s.off : s.off+s.n], true
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
	r, at := responseOf(b), uint32(abi.ResponseOffset+abi.ResponseHeader)
	r.action, r.flags, r.cookie = uint32(v.action), uint32(v.flags), v.cookie
	if v.action == abi.ActionRedirect {
		r.port, r.version, r.pid = v.to.Port(), 6, v.pid
		if v.to.Addr().Is4() {
			r.version = 4
		}
		if v.to.IsValid() {
			r.address = v.to.Addr().As16()
		}
		r.recordOff, r.recordLen, at = put(b, at, v.record)
		r.contextOff, r.contextLen, at = put(b, at, v.context)
		packed |= uint64(r.port)<<abi.PackPort | uint64(r.recordLen)<<abi.PackRecord
	}
	r.reason.off, r.reason.n, _ = put(b, at, cut(v.reason, min(abi.MaxReason, abi.BlockSize-int(at))))
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

// put copies an item to the response and says where it is, and where the next
// one goes.
func put[T string | []byte](b []byte, at uint32, item T) (off, n, next uint32) {
	n = uint32(copy(b[at:], item))
	return at, n, at + n
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
	switch wrong := decode(b, &call); {
	case wrong != "":
		verdict = Error(wrong)
	case co == nil:
		verdict = Error("no callout is registered: call callout.Register in init")
	default:
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
	granted = *(*uint32)(unsafe.Pointer(&b[abi.ResponseOffset+abi.InitGranted]))
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
		return abi.NotifyNone
	}
	e := Event{Kind: kind, Layer: requestOf(b).layer, FilterID: requestOf(b).filter, Connection: requestOf(b).connection, Cookie: responseOf(b).cookie}
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
