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
func encode(b *[abi.BlockSize]byte, c *fwps.Call, now int64) error {
	in := c.In
	if len(in.AppID) > abi.MaxApp {
		return fmt.Errorf("the program's path has %d bytes, a request holds %d", len(in.AppID), abi.MaxApp)
	}
	clear(b[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
	end, present, app := putApp(b, in.AppID)
	local, remote := &in.Local, &in.Remote
	switch {
	case c.Connect != nil:
		remote = &c.Connect.Remote
	case c.Bind != nil:
		local = &c.Bind.Local
	}
	what := uint64(ipVersion(in, remote.Addr())) | uint64(in.Protocol)<<8 | uint64(c.State)<<48
	if local.IsValid() {
		putAddr((*[16]byte)(b[abi.ReqLocal:]), local.Addr())
		what, present = what|uint64(local.Port())<<16, present|abi.PresentLocal
	} else {
		clear(b[abi.ReqLocal : abi.ReqLocal+16])
	}
	if remote.IsValid() {
		putAddr((*[16]byte)(b[abi.ReqRemote:]), remote.Addr())
		what, present = what|uint64(remote.Port())<<32, present|abi.PresentRemote
	} else {
		clear(b[abi.ReqRemote : abi.ReqRemote+16])
	}
	if in.Inbound {
		what |= 1 << 56
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
	le.PutUint64(b[abi.ReqSize:], uint64(end)|uint64(abi.Minor)<<32|uint64(in.Layer)<<48)
	le.PutUint64(b[abi.ReqPresent:], uint64(present)|uint64(in.ConditionFlags())<<32)
	le.PutUint64(b[abi.ReqConnection:], in.EndpointID)
	le.PutUint64(b[abi.ReqFilter:], filter)
	le.PutUint64(b[abi.ReqPID:], who)
	le.PutUint64(b[abi.ReqIPVersion:], what)
	le.PutUint64(b[abi.ReqApp:], app)
	clear(b[abi.ReqUser:abi.ReqMonotonic]) // The user, the record and the context.
	le.PutUint64(b[abi.ReqMonotonic:], uint64(now))
	le.PutUint64(b[abi.ReqInterface:], 0)
	if len(in.Other) > 0 || c.Hop != nil {
		return putRare(b, c, end)
	}
	return nil
}

// putApp writes the first item, which is at a place that is known. There is room.
func putApp(b *[abi.BlockSize]byte, app string) (end int, present uint32, field uint64) {
	n := len(app)
	if n == 0 {
		return abi.RequestHeader, 0, 0
	}
	item := b[abi.RequestHeader : abi.RequestHeader+abi.MaxApp]
	last := (n - 1) &^ 7
	le.PutUint64(item[last:], 0) // What the item does not fill.
	copy(item, app)
	return abi.RequestHeader + last + 8, abi.PresentApp, abi.RequestHeader | uint64(n)<<32
}

// putRare adds what few requests have to one that has all else.
func putRare(b *[abi.BlockSize]byte, c *fwps.Call, end int) error {
	r := rare{end, le.Uint32(b[abi.ReqPresent:])}
	if index, known := c.In.Other[fwpm.ConditionInterfaceIndex]; known {
		le.PutUint32(b[abi.ReqInterface:], uint32(index.Uint))
		r.present |= abi.PresentInterface
	}
	name := c.In.Other[fwpm.ConditionPeerName].Text
	if len(name) > abi.MaxHostname {
		return fmt.Errorf("the peer's name has %d bytes, a request holds %d", len(name), abi.MaxHostname)
	}
	host := item(b, &r, name, abi.PresentHostname)
	le.PutUint32(b[abi.ReqHostname:], uint32(host&0xffff|host>>32<<16))
	if c.Hop != nil {
		if len(c.Hop.Record) > abi.MaxRecord {
			return fmt.Errorf("the record has %d bytes, a request holds %d", len(c.Hop.Record), abi.MaxRecord)
		}
		le.PutUint64(b[abi.ReqRecord:], item(b, &r, c.Hop.Record, abi.PresentRecord))
		le.PutUint64(b[abi.ReqContext:], item(b, &r, c.Hop.Context, abi.PresentContext))
	}
	le.PutUint32(b[abi.ReqSize:], uint32(r.end))
	le.PutUint32(b[abi.ReqPresent:], r.present)
	return nil
}

// rare is where the items end, and what is known.
type rare struct {
	end     int
	present uint32
}

// ipVersion is 4 or 6. A v4-mapped destination is one of version 6: the
// socket's family, not the address, says at which layer it is classified.
func ipVersion(in *fwps.Incoming, remote netip.Addr) byte {
	if remote.Is4() || !remote.IsValid() && !in.Layer.IsV6() {
		return 4
	}
	return 6
}

// putAddr writes an address, v4 as v4-mapped.
func putAddr(b *[16]byte, a netip.Addr) {
	if !a.Is4() {
		*b = a.As16()
		return
	}
	v4 := a.As4() // By itself: the 16 bytes of As16 are written as two words and copied as one, which is slow.
	le.PutUint64(b[:8], 0)
	le.PutUint64(b[8:], 0xffff_0000|uint64(le.Uint32(v4[:]))<<32)
}

// item appends a tail item at the next 8-aligned offset and returns its two fields,
// offset and length. One that does not fit has no offset and no bit: only its
// length is told.
func item[T string | []byte](b *[abi.BlockSize]byte, r *rare, item T, bit uint32) uint64 {
	at, n := r.end, len(item)
	if n == 0 || n > abi.ResponseOffset-at {
		return uint64(n) << 32
	}
	r.present |= bit
	r.end = (at + n + 7) &^ 7
	le.PutUint64(b[r.end-8:], 0) // What the item does not fill.
	copy(b[at:], item)
	return uint64(at) | uint64(n)<<32
}
