package remote

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/transport"
)

// Version is that of the wire format.
const Version = 1

// A message is one packet of an AF_UNIX SOCK_SEQPACKET socket: a header, then a
// payload. Numbers are little-endian.
const (
	wireMagic  = 0x31575243 // "CRW1"
	headerSize = 24
	maxPayload = redirect.MaxBlob // the context is the longest there is
	maxMessage = headerSize + maxPayload
)

// Operations of requests; answers have answerBit set.
type operation uint16

const (
	opPing operation = iota
	opQueryRecords
	opQueryContext
	opQueryOriginal
	opSetRecords

	answerBit operation = 0x8000
)

var operations = [...]string{opPing: "ping", opQueryRecords: "query redirect records", opQueryContext: "query redirect context",
	opQueryOriginal: "query original destination", opSetRecords: "set redirect records"}

func (o operation) String() string {
	if o &^= answerBit; int(o) < len(operations) {
		return operations[o]
	}
	return fmt.Sprintf("operation %d", uint16(o))
}

// A message is a request or an answer. The payload of a failed answer is the rule,
// then the reason.
type message struct {
	op      operation
	id      uint32
	status  ntstatus.Status // of an answer
	rule    string          // of a failed answer
	payload []byte
}

// appendTo appends the message's bytes. A reason that is too long is cut.
func (m *message) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	payload := m.payload
	if over := len(m.rule) + len(payload) - maxPayload; over > 0 {
		payload = payload[:len(payload)-over]
	}
	b = le.AppendUint32(b, wireMagic)
	b = le.AppendUint16(b, Version)
	b = le.AppendUint16(b, uint16(m.op))
	b = le.AppendUint32(b, m.id)
	b = le.AppendUint32(b, uint32(len(m.rule)+len(payload)))
	b = le.AppendUint32(b, uint32(m.status))
	b = le.AppendUint16(b, uint16(len(m.rule)))
	b = le.AppendUint16(b, 0)
	return append(append(b, m.rule...), payload...)
}

// A wireError says what is wrong with a message, and where.
type wireError struct {
	at  int
	why string
}

func (e *wireError) Error() string { return fmt.Sprintf("byte %d: %s", e.at, e.why) }

// parse reads a message. The payload is a part of b. Of a message that it refuses
// it returns what it could read, so that the answer has the number.
func parse(b []byte) (m message, err error) {
	le := binary.LittleEndian
	bad := func(at int, format string, args ...any) (message, error) {
		return m, &wireError{at, fmt.Sprintf(format, args...)}
	}
	if len(b) < headerSize {
		return bad(len(b), "a message has at least %d bytes", headerSize)
	}
	if magic := le.Uint32(b); magic != wireMagic {
		return bad(0, "0x%08X is not 0x%08X, which messages begin with", magic, uint32(wireMagic))
	}
	m.op, m.id = operation(le.Uint16(b[6:])), le.Uint32(b[8:])
	if v := le.Uint16(b[4:]); v != Version {
		return bad(4, "version %d is not spoken here, %d is", v, Version)
	}
	n, rule := le.Uint32(b[12:]), int(le.Uint16(b[20:]))
	m.status = ntstatus.Status(le.Uint32(b[16:]))
	switch {
	case uint64(n) != uint64(len(b)-headerSize):
		return bad(12, "the payload is said to have %d bytes and has %d", n, len(b)-headerSize)
	case n > maxPayload:
		return bad(12, "the payload has %d bytes, the most is %d", n, maxPayload)
	case m.op&answerBit == 0 && m.status != 0:
		return bad(16, "a request has no status")
	case rule > int(n) || rule > 0 && (m.op&answerBit == 0 || m.status.Ok()):
		return bad(20, "a rule of %d bytes does not belong here", rule)
	case le.Uint16(b[22:]) != 0:
		return bad(22, "the reserved bytes are not zero")
	}
	m.rule, m.payload = string(b[headerSize:headerSize+rule]), b[headerSize+rule:]
	return m, nil
}

// An address is 24 bytes: family (4 or 6), port, the scope (of IPv6; else 0), 16 bytes
// of which IPv4 uses four.
const addressSize = 24

func appendAddress(b []byte, a netip.AddrPort) []byte {
	le := binary.LittleEndian
	family := uint16(6)
	if a.Addr().Is4() {
		family = 4
	}
	b = le.AppendUint16(b, family)
	b = le.AppendUint16(b, a.Port())
	scope, _ := transport.ScopeID(a.Addr()) // That of an interface which is gone is none.
	b = le.AppendUint32(b, scope)
	var raw [16]byte
	copy(raw[:], a.Addr().AsSlice())
	return append(b, raw[:]...)
}

func parseAddress(b []byte) (netip.AddrPort, error) {
	le := binary.LittleEndian
	if len(b) != addressSize {
		return netip.AddrPort{}, &wireError{headerSize, fmt.Sprintf("an address has %d bytes, not %d", addressSize, len(b))}
	}
	port := le.Uint16(b[2:])
	switch family := le.Uint16(b); family {
	case 4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[8:12])), port), nil
	case 6:
		return netip.AddrPortFrom(transport.WithScope(netip.AddrFrom16([16]byte(b[8:24])), le.Uint32(b[4:])), port), nil
	default:
		return netip.AddrPort{}, &wireError{headerSize, fmt.Sprintf("address family %d is neither 4 nor 6", family)}
	}
}
