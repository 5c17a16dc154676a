package remote

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	for _, m := range []message{
		{op: opPing, payload: []byte{}},
		{op: opSetRecords, id: 0xFFFFFFFF, payload: bytes.Repeat([]byte("r"), maxPayload)},
		{op: opQueryContext | answerBit, id: 7, payload: []byte("context")},
		{op: opQueryRecords | answerBit, status: ntstatus.AccessDenied, rule: "AMB-06", payload: []byte("why")},
	} {
		got, err := parse(m.appendTo(nil))
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
}

func TestAReasonThatIsTooLongIsCut(t *testing.T) {
	const rule = "AMB-06"
	for _, over := range []int{1, len(rule)} {
		m := message{op: answerBit, status: ntstatus.AccessDenied, rule: rule, payload: []byte(strings.Repeat("x", maxPayload-len(rule)+over))}
		b := m.appendTo(nil)
		require.Len(t, b, maxMessage)
		got, err := parse(b)
		require.NoError(t, err)
		require.Equal(t, rule, got.rule)
		require.Equal(t, strings.Repeat("x", maxPayload-len(rule)), string(got.payload))
	}
}

func TestMessagesThatAreRefusedSayWhere(t *testing.T) {
	good := (&message{op: opSetRecords, id: 9, payload: []byte("records")}).appendTo(nil)
	failed := (&message{op: answerBit, status: ntstatus.NotFound, rule: "R", payload: []byte("y")}).appendTo(nil)
	with := func(b []byte, at int, v uint32, size int) []byte {
		b = bytes.Clone(b)
		var n [4]byte
		binary.LittleEndian.PutUint32(n[:], v)
		copy(b[at:], n[:size])
		return b
	}
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"nothing", "byte 0: a message has at least 24 bytes", nil},
		{"half a header", "byte 11: a message has at least 24 bytes", good[:11]},
		{"a header without its last byte", "byte 23: a message has at least 24 bytes", good[:headerSize-1]},
		{"no message", "byte 0: 0x20544547 is not 0x31575243, which messages begin with", []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n")},
		{"another version", "byte 4: version 2 is not spoken here, 1 is", with(good, 4, 2, 2)},
		{"a payload that is cut", "byte 12: the payload is said to have 7 bytes and has 6", good[:len(good)-1]},
		{"a length that overflows", "byte 12: the payload is said to have 4294967295 bytes and has 7", with(good, 12, 0xFFFFFFFF, 4)},
		{"too much", "byte 12: the payload has 4097 bytes, the most is 4096", with(append(good[:headerSize:headerSize], make([]byte, maxPayload+1)...), 12, maxPayload+1, 4)},
		{"a request with a status", "byte 16: a request has no status", with(good, 16, 1, 4)},
		{"a request with a rule", "byte 20: a rule of 1 bytes does not belong here", with(good, 20, 1, 2)},
		{"a rule longer than all", "byte 20: a rule of 3 bytes does not belong here", with(failed, 20, 3, 2)},
		{"an answer that has succeeded and a rule", "byte 20: a rule of 1 bytes does not belong here", with(failed, 16, 0, 4)},
		{"reserved bytes", "byte 22: the reserved bytes are not zero", with(good, 22, 1, 2)},
	} {
		_, err := parse(c.b)
		require.EqualError(t, err, c.want, c.name)
	}
	m, err := parse(with(good, 4, 2, 2))
	require.Error(t, err)
	require.EqualValues(t, 9, m.id, "the answer has the number")
}

func TestAddresses(t *testing.T) {
	for _, a := range []string{"198.51.100.7:80", "[2001:db8::1]:65535", "[::ffff:198.51.100.7]:443", "0.0.0.0:0", "[fe80::1%7]:80", "[fe80::1%4294967295]:80"} {
		want := netip.MustParseAddrPort(a)
		got, err := parseAddress(appendAddress(nil, want))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := parseAddress([]byte{4})
	require.EqualError(t, err, "byte 24: an address has 24 bytes, not 1")
	_, err = parseAddress(make([]byte, addressSize))
	require.EqualError(t, err, "byte 24: address family 0 is neither 4 nor 6")
}

// What parse takes is written the same again; what it refuses it explains.
func FuzzWire(f *testing.F) {
	for _, m := range []message{{op: opPing}, {op: opSetRecords, id: 1, payload: []byte("records")},
		{op: opQueryOriginal | answerBit, payload: appendAddress(nil, netip.MustParseAddrPort("[2001:db8::1]:80"))},
		{op: opQueryRecords | answerBit, status: ntstatus.AccessDenied, rule: "AMB-06", payload: []byte("why")}} {
		f.Add(m.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			require.ErrorContains(t, err, "byte ")
			return
		}
		require.Equal(t, b, m.appendTo(nil))
		require.NotEmpty(t, m.op.String())
		if a, err := parseAddress(m.payload); err == nil {
			again, err := parseAddress(appendAddress(nil, a))
			require.NoError(t, err)
			require.Equal(t, a, again)
		}
	})
}
