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

// encode writes the request, every word of its header: nothing is left of the last
// one. The response is zeroed, so that an answer left over from the last call cannot
// be read as this one's.
//
// A callout that does not see all would decide wrongly, so nothing that has a limit
// is left out; only the context may be, which is for the proxy. The user's name is
// not there: the host knows users by number.
func encode(block []byte, c *fwps.Call, now int64) error {
	b := (*[abi.BlockSize]byte)(block)
	clear(b[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
	in, local, remote := c.In, &c.In.Local, &c.In.Remote
	switch {
	case c.Connect != nil:
		remote = &c.Connect.Remote
	case c.Bind != nil:
		local = &c.Bind.Local
	}
	if len(in.AppID) > abi.MaxApp {
		return fmt.Errorf("the program's path has %d bytes, a request holds %d", len(in.AppID), abi.MaxApp)
	}
	end, present := abi.RequestHeader, uint32(0)
	app := put(b, &end, &present, in.AppID, abi.PresentApp)
	var seldom rare
	if len(in.Other) > 0 || c.Hop != nil {
		if err := seldom.put(b, &end, &present, c); err != nil {
			return err
		}
	}
	var who, filter uint64
	if in.ProcessID != 0 {
		who, present = uint64(in.ProcessID), present|abi.PresentPID
	}
	if in.UserKnown {
		who, present = who|uint64(in.UserID)<<32, present|abi.PresentUID
	}
	if c.Filter != nil {
		filter = uint64(c.Filter.ID)
	}
	word(b, abi.ReqConnection, in.EndpointID)
	word(b, abi.ReqFilter, filter)
	word(b, abi.ReqPID, who)
	what := uint64(ipVersion(in, remote)) | uint64(in.Protocol)<<8 | uint64(c.State)<<48
	what |= uint64(putAddr(b, abi.ReqLocal, local, &present, abi.PresentLocal)) << 16
	what |= uint64(putAddr(b, abi.ReqRemote, remote, &present, abi.PresentRemote)) << 32
	if in.Inbound {
		what |= 1 << 56
	}
	word(b, abi.ReqIPVersion, what)
	word(b, abi.ReqApp, app)
	word(b, abi.ReqUser, 0)
	word(b, abi.ReqRecord, seldom.record)
	word(b, abi.ReqContext, seldom.context)
	word(b, abi.ReqMonotonic, uint64(now))
	word(b, abi.ReqInterface, seldom.place)
	word(b, abi.ReqSize, uint64(end)|uint64(abi.Minor)<<32|uint64(in.Layer)<<48)
	word(b, abi.ReqPresent, uint64(present)|uint64(in.ConditionFlags())<<32)
	return nil
}

// word writes eight bytes of the header: two fields, or more, at once.
func word(b *[abi.BlockSize]byte, at int, v uint64) { le.PutUint64(b[at:at+8], v) }

// rare are the words of the header that few requests fill.
type rare struct{ record, context, place uint64 }

func (r *rare) put(b *[abi.BlockSize]byte, end *int, present *uint32, c *fwps.Call) error {
	if index, known := c.In.Other[fwpm.ConditionInterfaceIndex]; known {
		r.place = uint64(uint32(index.Uint))
		*present |= abi.PresentInterface
	}
	name := c.In.Other[fwpm.ConditionPeerName].Text
	if len(name) > abi.MaxHostname {
		return fmt.Errorf("the peer's name has %d bytes, a request holds %d", len(name), abi.MaxHostname)
	}
	host := put(b, end, present, name, abi.PresentHostname)
	r.place |= host&0xffff<<32 | host>>32<<48
	if c.Hop == nil {
		return nil
	}
	if len(c.Hop.Record) > abi.MaxRecord {
		return fmt.Errorf("the record has %d bytes, a request holds %d", len(c.Hop.Record), abi.MaxRecord)
	}
	r.record = put(b, end, present, c.Hop.Record, abi.PresentRecord)
	r.context = put(b, end, present, c.Hop.Context, abi.PresentContext)
	return nil
}

// ipVersion is 4 or 6. A v4-mapped destination is one of version 6: the
// socket's family, not the address, says at which layer it is classified.
func ipVersion(in *fwps.Incoming, remote *netip.AddrPort) byte {
	if a := remote.Addr(); a.Is4() || !a.IsValid() && !in.Layer.IsV6() {
		return 4
	}
	return 6
}

// putAddr writes an address, v4 as v4-mapped, and returns its port.
func putAddr(b *[abi.BlockSize]byte, at int, a *netip.AddrPort, present *uint32, bit uint32) uint16 {
	switch addr := a.Addr(); {
	case addr.Is4(): // By itself: the 16 bytes of As16 are written as two words and copied as one, which is slow.
		v4 := addr.As4()
		word(b, at, 0)
		word(b, at+8, 0xffff_0000|uint64(le.Uint32(v4[:]))<<32)
	case addr.IsValid():
		v6 := addr.As16()
		word(b, at, le.Uint64(v6[:8]))
		word(b, at+8, le.Uint64(v6[8:]))
	default:
		word(b, at, 0)
		word(b, at+8, 0)
		return 0
	}
	*present |= bit
	return a.Port()
}

// put appends a tail item at the next 8-aligned offset and returns its two fields,
// offset and length. One that does not fit has no offset and no bit: only its
// length is told.
func put[T string | []byte](b *[abi.BlockSize]byte, end *int, present *uint32, item T, bit uint32) uint64 {
	at, n := *end, len(item)
	if n == 0 || n > abi.ResponseOffset-at {
		return uint64(n) << 32
	}
	*present |= bit
	*end = (at + n + 7) &^ 7
	le.PutUint64(b[*end-8:], 0) // What the item does not fill.
	copy(b[at:], item)
	return uint64(at) | uint64(n)<<32
}
