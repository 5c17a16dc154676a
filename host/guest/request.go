package guest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/abi"
)

var le = binary.LittleEndian

// encode writes the request. The response is zeroed first, so that an answer
// left over from the last call cannot be read as this one's.
func encode(block []byte, c *fwps.Call, now int64) error {
	b := (*[abi.BlockSize]byte)(block)[:] // Of a length that the compiler knows.
	clear(b[:abi.RequestHeader])
	clear(b[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
	in, local, remote := c.In, c.In.Local, c.In.Remote
	switch {
	case c.Connect != nil:
		remote = c.Connect.Remote
	case c.Bind != nil:
		local = c.Bind.Local
	}
	le.PutUint16(b[abi.ReqMinor:], abi.Minor)
	le.PutUint16(b[abi.ReqLayer:], uint16(in.Layer))
	le.PutUint32(b[abi.ReqConditionFlags:], uint32(in.ConditionFlags()))
	le.PutUint64(b[abi.ReqConnection:], in.EndpointID)
	if c.Filter != nil {
		le.PutUint64(b[abi.ReqFilter:], uint64(c.Filter.ID))
	}
	b[abi.ReqIPVersion] = ipVersion(in, remote)
	b[abi.ReqProtocol] = in.Protocol
	b[abi.ReqRedirectState] = byte(c.State)
	if in.Inbound {
		b[abi.ReqDirection] = 1
	}
	le.PutUint64(b[abi.ReqMonotonic:], uint64(now))
	present := putAddr(b, abi.ReqLocal, abi.ReqLocalPort, local, abi.PresentLocal)
	present |= putAddr(b, abi.ReqRemote, abi.ReqRemotePort, remote, abi.PresentRemote)
	if in.ProcessID != 0 {
		le.PutUint32(b[abi.ReqPID:], in.ProcessID)
		present |= abi.PresentPID
	}
	if in.UserKnown {
		le.PutUint32(b[abi.ReqUID:], in.UserID)
		present |= abi.PresentUID
	}
	if len(in.Other) > 0 {
		if index, known := in.Other[fwpm.ConditionInterfaceIndex]; known {
			le.PutUint32(b[abi.ReqInterface:], uint32(index.Uint))
			present |= abi.PresentInterface
		}
	}
	return encodeTail(b, c, present)
}

// encodeTail writes the items of variable length and what depends on them. The
// user's name is not among them: the host knows users by number. A callout that
// does not see all would decide wrongly, so nothing that has a limit is left
// out; only the context may be, which is for the proxy.
func encodeTail(b []byte, c *fwps.Call, present uint32) error {
	if len(c.In.AppID) > abi.MaxApp {
		return fmt.Errorf("the program's path has %d bytes, a request holds %d", len(c.In.AppID), abi.MaxApp)
	}
	at, bits := put(b, abi.RequestHeader, abi.ReqApp, c.In.AppID, abi.PresentApp)
	present |= bits
	if len(c.In.Other) > 0 {
		name := c.In.Other[fwpm.ConditionPeerName].Text
		if len(name) > abi.MaxHostname {
			return fmt.Errorf("the peer's name has %d bytes, a request holds %d", len(name), abi.MaxHostname)
		}
		if name != "" {
			le.PutUint16(b[abi.ReqHostname:], uint16(at))
			le.PutUint16(b[abi.ReqHostname+2:], uint16(len(name)))
			at = place(b, at, name)
			present |= abi.PresentHostname
		}
	}
	if c.Hop != nil {
		if len(c.Hop.Record) > abi.MaxRecord {
			return fmt.Errorf("the record has %d bytes, a request holds %d", len(c.Hop.Record), abi.MaxRecord)
		}
		at, bits = put(b, at, abi.ReqRecord, c.Hop.Record, abi.PresentRecord)
		present |= bits
		at, bits = put(b, at, abi.ReqContext, c.Hop.Context, abi.PresentContext)
		present |= bits
	}
	le.PutUint32(b[abi.ReqSize:], uint32(at))
	le.PutUint32(b[abi.ReqPresent:], present)
	return nil
}

// ipVersion is 4 or 6. A v4-mapped destination is one of version 6: the
// socket's family, not the address, says at which layer it is classified.
func ipVersion(in *fwps.Incoming, remote netip.AddrPort) byte {
	if a := remote.Addr(); a.Is4() || !a.IsValid() && !in.Layer.IsV6() {
		return 4
	}
	return 6
}

// putAddr writes into a block that is clear.
func putAddr(b []byte, at, port int, a netip.AddrPort, bit uint32) uint32 {
	if !a.IsValid() {
		return 0
	}
	le.PutUint16(b[port:], a.Port())
	if addr := a.Addr(); addr.Is4() { // As two numbers: 16 bytes that were just written as two words are slow to copy.
		x := addr.As4()
		le.PutUint64(b[at+8:], 0xffff0000|uint64(le.Uint32(x[:]))<<32)
	} else {
		x := addr.As16()
		le.PutUint64(b[at:], le.Uint64(x[:]))
		le.PutUint64(b[at+8:], le.Uint64(x[8:]))
	}
	return bit
}

// put appends a tail item at the next 8-aligned offset. It returns where the
// next one goes and the item's bit, which is zero if the item does not fit:
// then only its length is told.
func put[T string | []byte](b []byte, at, field int, item T, bit uint32) (int, uint32) {
	le.PutUint32(b[field+4:], uint32(len(item)))
	if len(item) == 0 || len(item) > abi.ResponseOffset-at {
		return at, 0
	}
	le.PutUint32(b[field:], uint32(at))
	return place(b, at, item), bit
}

// place copies an item, which is not empty and has room, and returns where the next one goes.
func place[T string | []byte](b []byte, at int, item T) int {
	next := (at + len(item) + 7) &^ 7
	le.PutUint64(b[next-8:], 0) // What the item does not fill.
	copy(b[at:], item)
	return next
}
