package winsock

import (
	"encoding/binary"
	"fmt"

	"github.com/calloutd/calloutd/wsk"
)

// A WSACMSGHDR is the length of header and data (8 bytes), level and type (4
// bytes each); data follow, and the next header is 8-byte aligned (RED-UM-12).
const cmsgHeader = 16

func align(n int) int { return (n + 7) &^ 7 }

// AppendControl appends messages as WSASendMsg takes them.
func AppendControl(b []byte, messages ...wsk.ControlMessage) []byte {
	le := binary.LittleEndian
	for _, m := range messages {
		b = append(b, make([]byte, align(len(b))-len(b))...)
		b = le.AppendUint64(b, uint64(cmsgHeader+len(m.Data)))
		b = le.AppendUint32(b, m.Level)
		b = le.AppendUint32(b, m.Type)
		b = append(b, m.Data...)
	}
	return b
}

// ParseControl reads what WSARecvMsg gives. The messages' data are parts of b.
func ParseControl(b []byte) ([]wsk.ControlMessage, error) {
	le := binary.LittleEndian
	var out []wsk.ControlMessage
	for at := 0; at < len(b); {
		rest := b[at:]
		if len(rest) < cmsgHeader {
			return nil, fmt.Errorf("winsock: control data: %d bytes at %d, a header has %d", len(rest), at, cmsgHeader)
		}
		n := le.Uint64(rest)
		if n < cmsgHeader || n > uint64(len(rest)) {
			return nil, fmt.Errorf("winsock: control data: the message at %d says %d bytes of %d", at, n, len(rest))
		}
		out = append(out, wsk.ControlMessage{Level: le.Uint32(rest[8:]), Type: le.Uint32(rest[12:]), Data: rest[cmsgHeader:n:n]})
		at += align(int(n))
	}
	return out, nil
}
