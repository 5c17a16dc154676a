package tck

import (
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/sdk/abi"
)

// A request is one call as a host sees it.
type request struct {
	layer                   uint16
	protocol, direction     uint8
	flags, present          uint32
	connection, filter      uint64
	pid, uid, iface         uint32
	version, state          uint8
	localPort, port         uint16
	local, remote           [16]byte
	clock                   uint64
	app, user, host, record string
	context                 string
	left                    bool // the context is left out
	broken                  int  // this item (a field's offset) is outside the request
}

// known is what is present; a mirror needs the port always.
func (q request) known() uint32 { return q.present | abi.PresentLocal | abi.PresentRemote }

// write writes it as the ABI says.
func (q request) write(b []byte) {
	le.PutUint16(b[abi.ReqMinor:], abi.Minor)
	le.PutUint16(b[abi.ReqLayer:], q.layer)
	le.PutUint32(b[abi.ReqPresent:], q.known())
	le.PutUint32(b[abi.ReqConditionFlags:], q.flags)
	le.PutUint64(b[abi.ReqConnection:], q.connection)
	le.PutUint64(b[abi.ReqFilter:], q.filter)
	le.PutUint32(b[abi.ReqPID:], q.pid)
	le.PutUint32(b[abi.ReqUID:], q.uid)
	b[abi.ReqIPVersion], b[abi.ReqProtocol] = q.version, q.protocol
	le.PutUint16(b[abi.ReqLocalPort:], q.localPort)
	le.PutUint16(b[abi.ReqRemotePort:], q.port)
	b[abi.ReqRedirectState], b[abi.ReqDirection] = q.state, q.direction
	copy(b[abi.ReqLocal:], q.local[:])
	copy(b[abi.ReqRemote:], q.remote[:])
	le.PutUint64(b[abi.ReqMonotonic:], q.clock)
	le.PutUint32(b[abi.ReqInterface:], q.iface)
	at := q.items(b)
	le.PutUint32(b[abi.ReqSize:], uint32(at))
	if q.broken != 0 {
		le.PutUint32(b[q.broken:], abi.ResponseOffset-1)
		le.PutUint32(b[q.broken+4:], 2)
	}
}

func (q request) items(b []byte) int {
	at := abi.RequestHeader
	for _, i := range []struct {
		field int
		text  string
	}{{abi.ReqApp, q.app}, {abi.ReqUser, q.user}, {abi.ReqRecord, q.record}, {abi.ReqContext, q.context}} {
		le.PutUint32(b[i.field+4:], uint32(len(i.text)))
		if i.text == "" || i.field == abi.ReqContext && q.left {
			continue
		}
		le.PutUint32(b[i.field:], uint32(at))
		at = (at + copy(b[at:], i.text) + 7) &^ 7
	}
	if q.host != "" {
		le.PutUint16(b[abi.ReqHostname:], uint16(at))
		le.PutUint16(b[abi.ReqHostname+2:], uint16(len(q.host)))
		at = (at + copy(b[at:], q.host) + 7) &^ 7
	}
	return at
}

// mirrored is the request as the mirror tells it.
func (q request) mirrored() string {
	var b []byte
	b = le.AppendUint16(b, q.layer)
	b = append(b, q.protocol, q.direction)
	b = le.AppendUint32(b, q.flags)
	b = le.AppendUint64(b, q.connection)
	b = le.AppendUint64(b, q.filter)
	b = le.AppendUint32(b, q.known())
	b = le.AppendUint32(b, q.pid)
	b = le.AppendUint32(b, q.uid)
	b = append(b, q.version, q.state)
	b = le.AppendUint16(b, q.localPort)
	b = le.AppendUint16(b, q.port)
	b = append(b, q.local[:]...)
	b = append(b, q.remote[:]...)
	b = le.AppendUint64(b, q.clock)
	b = le.AppendUint32(b, q.iface)
	for _, item := range []string{q.app, q.user, q.host, q.record, q.context} {
		b = append(le.AppendUint32(b, uint32(len(item))), item...)
	}
	if q.left {
		b = b[:len(b)-len(q.context)]
	}
	return string(b)
}

// An answer is one that an SDK must write.
type answer struct {
	action, flags           uint16
	to                      netip.AddrPort
	pid                     uint32
	cookie                  uint64
	record, context, reason string
}

// bytes are the packed answer and the response, as far as it is written: a
// permit, block or continue without a reason and a cookie writes nothing.
func (a answer) bytes() (uint64, []byte) {
	r := make([]byte, abi.ResponseHeader)
	packed := uint64(a.action) | uint64(a.flags)<<abi.PackFlags
	if a.action != abi.ActionRedirect && a.reason == "" && a.cookie == 0 {
		return packed, r
	}
	le.PutUint32(r[abi.RespAction:], uint32(a.action))
	le.PutUint32(r[abi.RespFlags:], uint32(a.flags))
	le.PutUint64(r[abi.RespCookie:], a.cookie)
	add := func(off, n int, text string) {
		le.PutUint32(r[off:], uint32(abi.ResponseOffset+len(r)))
		le.PutUint32(r[n:], uint32(len(text)))
		r = append(r, text...)
	}
	if a.action == abi.ActionRedirect {
		packed |= uint64(a.to.Port())<<abi.PackPort | uint64(len(a.record))<<abi.PackRecord
		le.PutUint16(r[abi.RespPort:], a.to.Port())
		r[abi.RespIPVersion] = 6
		if a.to.Addr().Is4() {
			r[abi.RespIPVersion] = 4
		}
		le.PutUint32(r[abi.RespTargetPID:], a.pid)
		address := a.to.Addr().As16()
		copy(r[abi.RespAddress:], address[:])
		add(abi.RespRecordOff, abi.RespRecordLen, a.record)
		add(abi.RespContextOff, abi.RespContextLen, a.context)
	}
	add(abi.RespReason, abi.RespReason+4, a.reason)
	return packed, r
}

// A call is a request and the answer to it.
type call struct {
	name    string
	request request
	answer  answer
}

var (
	four = netip.MustParseAddrPort("127.0.0.1:8080")
	six  = netip.MustParseAddrPort("[2001:db8::1]:8080")
)

func configured(granted uint32, config string) answer {
	b := le.AppendUint32(le.AppendUint32(nil, granted), uint32(len(config)))
	var first, last [16]byte
	copy(first[:], config)
	for i := range min(16, len(config)) {
		last[i] = config[len(config)-1-i]
	}
	return answer{action: abi.ActionRedirect, to: four, pid: 77, record: string(append(append(b, first[:]...), last[:]...))}
}

func failed(reason string) answer { return answer{action: abi.ActionGuestError, reason: reason} }

// calls is the table.
func calls(o Options) []call {
	out := answers(o)
	for _, q := range requests() {
		q.request.port = 4
		q.answer = answer{action: abi.ActionRedirect, to: four, pid: 77, record: q.request.mirrored(), context: "context"}
		out = append(out, q)
	}
	for _, field := range []int{abi.ReqApp, abi.ReqUser, abi.ReqRecord, abi.ReqContext} {
		out = append(out, call{"an item outside the request", request{port: 1, broken: field, present: 0xff},
			failed("a request item is outside the request")})
	}
	return out
}

func answers(o Options) []call {
	ask := func(port uint16) request { return request{port: port} }
	out := []call{
		{"permit", ask(1), answer{action: abi.ActionPermit}},
		{"block", ask(2), answer{action: abi.ActionBlock, reason: "no such place"}},
		{"continue", ask(3), answer{action: abi.ActionContinue}},
		{"hard", ask(5), answer{action: abi.ActionPermit, flags: abi.FlagHard}},
		{"redirect to IPv6 without a record", ask(6), answer{action: abi.ActionRedirect, flags: abi.FlagNoRecord, to: six}},
		{"keep the context", ask(7), answer{action: abi.ActionRedirect, flags: abi.FlagKeepContext, to: four, pid: 77, record: "again"}},
		{"too long a record", ask(9), failed("the record is over the limit of 3456 bytes")},
		{"too long a context", ask(10), failed("the context is over the limit of 4096 bytes")},
		{"the longest of both", ask(11), answer{action: abi.ActionRedirect, to: four, pid: 77,
			record: strings.Repeat("r", abi.MaxRecord), context: strings.Repeat("c", abi.MaxContext)}},
		{"cacheable, with a reason", ask(12), answer{action: abi.ActionPermit, flags: abi.FlagCacheable, reason: "because"}},
		{"a reason is cut between characters", ask(13), answer{action: abi.ActionBlock, reason: "a" + strings.Repeat("é", 511)}},
		{"an error", ask(14), failed("it broke")},
		{"a cookie", ask(15), answer{action: abi.ActionPermit, cookie: cookie}},
	}
	if !o.Total {
		out = append(out, call{"no verdict", ask(8), failed("the callout gave no verdict")})
	}
	return out
}

func requests() []call {
	v4 := netip.MustParseAddr("198.51.100.7").As16()
	v6 := netip.MustParseAddr("2001:db8::7").As16()
	return []call{
		{name: "a request of zeroes"},
		{name: "a request with all numbers", request: request{layer: 0x1234, protocol: 17, direction: 1, flags: 0x89abcdef, present: 0x3ff,
			connection: 0x8123456789abcdef, filter: 0xfedcba9876543210, pid: 0x80000001, uid: 0xfffffffe, iface: 0xdeadbeef,
			version: 6, state: 3, localPort: 0xfedc, local: v6, remote: v4, clock: 0xfedcba9876543210}},
		{name: "a request with all texts", request: request{present: 0x3ff, version: 4, local: v4, remote: v4,
			app: "/usr/bin/curl", user: "zoë", host: "example.test", record: "record\x00\xff", context: "context"}},
		{name: "a request with long texts", request: request{present: 0x3ff, version: 6,
			app: long(1001), user: long(256), host: long(253), record: long(999), context: long(500)}},
		{name: "a context that was left out", request: request{present: 0x3ff &^ abi.PresentContext, record: "r", context: long(4096), left: true}},
	}
}

// cookie is the one that a mirror gives.
const cookie = 0x8122334455667788

// An event is one that a guest hears of.
type event struct {
	name                       string
	kind                       uint32
	layer                      uint16
	filter, connection, cookie uint64
	refused                    string // why, empty if it is not
}

const connection = 0x9000000000000009

var events = []event{
	{"a filter", abi.EventFilterAdded, 0x44, 12, 0, 0, ""},
	{"a filter that is refused", abi.EventFilterAdded, 0x44, 0x800000000000000d, 0, 0, "no such filter"},
	{"a filter that goes", abi.EventFilterDeleted, 0x44, 0x800000000000000d, 0, 0, ""},
	{"a flow", abi.EventFlowDeleted, 0x44, 0, 0, cookie, ""},
	{"another flow", abi.EventFlowDeleted, 0x44, 0, 0, cookie - 1, "no such flow"},
	{"a flow of another layer", abi.EventFlowDeleted, 0x46, 0, 0, cookie, "no such flow"},
	{"a flow that begins", abi.EventFlowEstablished, 0x44, 12, connection, cookie, ""},
	{"another flow that begins", abi.EventFlowEstablished, 0x44, 12, connection - 1, cookie, "no such connection"},
	{"a redirect", abi.EventRedirectDone, 0x44, 12, connection, 0, ""},
	{"another redirect", abi.EventRedirectDone, 0x44, 12, connection + 1, 0, "no such connection"},
	{"an event of a later host", 77, 0, 0, 0, 0, ""},
}
