package wsk

import (
	"encoding/binary"
	"net/netip"
	"unicode/utf16"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// The control codes of mstcpip.h with which a client says whom it means to reach.
const (
	SIOSetPeerTargetName    uint32 = 0x980000CA // SIO_SET_PEER_TARGET_NAME
	SIODeletePeerTargetName uint32 = 0x980000CB // SIO_DELETE_PEER_TARGET_NAME
)

// SOCKET_PEER_TARGET_NAME: the security protocol, the address, the name's length
// in bytes and the name in UTF-16.
const (
	peerAddressAt = 8
	peerLengthAt  = peerAddressAt + sockaddrStorage
	peerNameAt    = peerLengthAt + 4
	maxPeerName   = 255 // characters: those of a DNS name
)

// AppendPeerTargetName appends the SOCKET_PEER_TARGET_NAME of a peer.
func AppendPeerTargetName(b []byte, peer netip.AddrPort, name string) []byte {
	units := utf16.Encode([]rune(name))
	header := make([]byte, peerNameAt)
	copy(header[peerAddressAt:], AppendSockaddr(nil, peer))
	le.PutUint32(header[peerLengthAt:], uint32(2*len(units)))
	b = append(b, header...)
	for _, u := range units {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// parsePeerTargetName reads the name, false if it is malformed, empty or too long.
func parsePeerTargetName(in []byte) (string, bool) {
	if len(in) < peerNameAt {
		return "", false
	}
	n := le.Uint32(in[peerLengthAt:])
	if n == 0 || n%2 != 0 || n > 2*maxPeerName || uint64(n) > uint64(len(in)-peerNameAt) {
		return "", false
	}
	units := make([]uint16, n/2)
	for i := range units {
		units[i] = le.Uint16(in[peerNameAt+2*i:])
	}
	name := string(utf16.Decode(units))
	return name, len(name) <= maxPeerName
}

// setPeerTargetName answers SIO_SET_PEER_TARGET_NAME and its undoing: the name is
// FWPM_CONDITION_PEER_NAME of the coming connect. There is one peer, so its
// address is not looked at. A socket that connects has said whom it means.
func (s *Socket) setPeerTargetName(code uint32, in, _ []byte) (ntstatus.Status, int) {
	if s.accepted || s.state >= connecting {
		return ntstatus.ConnectionActive, 0
	}
	name, ok := "", true
	if code == SIOSetPeerTargetName {
		name, ok = parsePeerTargetName(in)
	}
	if !ok {
		return ntstatus.InvalidParameter, 0
	}
	s.ale.SetPeerName(name)
	return ntstatus.Success, 0
}
