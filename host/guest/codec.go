package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/abi"
)

var le = binary.LittleEndian

// started is where the monotonic clock of requests begins.
var started = time.Now()

// encode writes the request. The response is zeroed first, so that an answer
// left over from the last call cannot be read as this one's.
func encode(b []byte, c *fwps.Call) error {
	clear(b[:abi.RequestHeader])
	clear(b[abi.ResponseOffset : abi.ResponseOffset+abi.ResponseHeader])
	in, remote := c.In, c.In.Remote
	if c.Connect != nil {
		remote = c.Connect.Remote
	}
	le.PutUint16(b[abi.ReqLayer:], uint16(in.Layer))
	le.PutUint32(b[abi.ReqConditionFlags:], uint32(in.Flags))
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
	le.PutUint64(b[abi.ReqMonotonic:], uint64(time.Since(started)))
	present := putAddr(b, abi.ReqLocal, abi.ReqLocalPort, in.Local, abi.PresentLocal)
	present |= putAddr(b, abi.ReqRemote, abi.ReqRemotePort, remote, abi.PresentRemote)
	if in.ProcessID != 0 {
		le.PutUint32(b[abi.ReqPID:], in.ProcessID)
		present |= abi.PresentPID
	}
	if in.UserKnown {
		le.PutUint32(b[abi.ReqUID:], in.UserID)
		present |= abi.PresentUID
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

func putAddr(b []byte, at, port int, a netip.AddrPort, bit uint32) uint32 {
	if !a.IsValid() {
		return 0
	}
	x := a.Addr().As16()
	copy(b[at:], x[:])
	le.PutUint16(b[port:], a.Port())
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
	end := at + copy(b[at:], item)
	le.PutUint32(b[field:], uint32(at))
	next := (end + 7) &^ 7
	clear(b[end:next])
	return next, bit
}

// decode reads the packed answer and, where it says there is more, the response.
func decode(b []byte, packed uint64, c *fwps.Call, v *fwps.Verdict) error {
	action, flags := packed&0xffff, packed>>abi.PackFlags
	v.ClearActionRight = flags&abi.FlagHard != 0
	r := b[abi.ResponseOffset:]
	switch action {
	case abi.ActionPermit:
		v.Action = fwp.ActionPermit
	case abi.ActionBlock:
		v.Action = fwp.ActionBlock
	case abi.ActionContinue:
		v.Action = fwp.ActionContinue
	case abi.ActionRedirect:
		v.Action = fwp.ActionPermit
		if err := decodeRedirect(b, r, flags, c, v); err != nil {
			return err
		}
	case abi.ActionInvalid:
		return errors.New("the guest gave no answer")
	case abi.ActionPend:
		return errors.New("the guest asked to pend, which this host does not offer")
	case abi.ActionGuestError:
		return fmt.Errorf("guest error: %s", reason(b, -1))
	default:
		return fmt.Errorf("the guest answered with unknown action %d", action)
	}
	text, err := reasonText(b)
	if len(text) > 0 {
		v.Reason = string(text)
	}
	return err
}

// reasonText is what the guest says for people; it may be empty.
func reasonText(b []byte) ([]byte, error) {
	r := b[abi.ResponseOffset:]
	text, err := slice(b, le.Uint32(r[abi.RespReason:]), le.Uint32(r[abi.RespReason+4:]), abi.MaxReason, "reason")
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(text) {
		return nil, errors.New("reason is not UTF-8")
	}
	return text, nil
}

func decodeRedirect(b, r []byte, flags uint64, c *fwps.Call, v *fwps.Verdict) error {
	if le.Uint32(r[abi.RespAction:]) != abi.ActionRedirect {
		return errors.New("the answer says redirect, the response does not")
	}
	addr := netip.AddrFrom16([16]byte(r[abi.RespAddress:]))
	switch r[abi.RespIPVersion] {
	case 4:
		if !addr.Is4In6() {
			return errors.New("the new address says version 4 but is not v4-mapped")
		}
		addr = addr.Unmap()
	case 6:
	default:
		return fmt.Errorf("the new address has IP version %d", r[abi.RespIPVersion])
	}
	v.Redirect, v.To, v.TargetPID = true, netip.AddrPortFrom(addr, le.Uint16(r[abi.RespPort:])), le.Uint32(r[abi.RespTargetPID:])
	v.NoHandle = flags&abi.FlagNoRecord != 0
	rec, err := slice(b, le.Uint32(r[abi.RespRecordOff:]), le.Uint32(r[abi.RespRecordLen:]), abi.MaxRecord, "record")
	if err != nil {
		return err
	}
	ctx, err := slice(b, le.Uint32(r[abi.RespContextOff:]), le.Uint32(r[abi.RespContextLen:]), abi.MaxContext, "context")
	if err != nil {
		return err
	}
	if flags&abi.FlagKeepContext != 0 && c.Hop != nil {
		ctx = c.Hop.Context
	}
	v.Record, v.Context = append(v.Record[:0], rec...), append(v.Context[:0], ctx...)
	return nil
}

// slice returns bytes of the block's response half.
func slice(b []byte, off, n uint32, most int, what string) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if n > uint32(most) {
		return nil, fmt.Errorf("%s of %d bytes is over the limit of %d", what, n, most)
	}
	if off < abi.ResponseOffset+abi.ResponseHeader || uint64(off)+uint64(n) > uint64(len(b)) {
		return nil, fmt.Errorf("%s at %d of %d bytes is outside the response", what, off, n)
	}
	return b[off : off+n], nil
}

// reason is the text a guest left, or the code when there is none.
func reason(b []byte, code int32) string {
	text, err := reasonText(b)
	if err != nil || len(text) == 0 {
		return fmt.Sprintf("code %d", code)
	}
	return string(text)
}
