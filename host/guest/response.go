package guest

import (
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/abi"
)

const knownFlags = abi.FlagHard | abi.FlagKeepContext | abi.FlagNoRecord | abi.FlagCacheable

// decode reads the packed answer and, where it says there is more, the response.
func (i *instance) decode(packed uint64, c *fwps.Call, v *fwps.Verdict) error {
	b := i.block
	action, flags := packed&0xffff, packed>>abi.PackFlags
	if flags&^knownFlags != 0 {
		return fmt.Errorf("the answer has unknown flags %#x", flags&^knownFlags)
	}
	v.ClearActionRight, v.Cacheable = flags&abi.FlagHard != 0, flags&abi.FlagCacheable != 0 && !i.impure
	switch action {
	case abi.ActionPermit:
		v.Action = fwp.ActionPermit
	case abi.ActionBlock:
		v.Action = fwp.ActionBlock
	case abi.ActionContinue:
		v.Action = fwp.ActionContinue
	case abi.ActionRedirect:
		v.Action = fwp.ActionPermit
		if err := decodeRedirect(b, packed, c, v); err != nil {
			return err
		}
	case abi.ActionInvalid:
		return errors.New("the guest gave no answer")
	case abi.ActionPend:
		return errors.New("the guest asked to pend, which this host does not offer")
	case abi.ActionGuestError:
		return &guestError{reason(b[:], -1)}
	default:
		return fmt.Errorf("the guest answered with unknown action %d", action)
	}
	if le.Uint32(b[abi.ResponseOffset+abi.RespReason+4:]) == 0 {
		return nil
	}
	text, err := reasonText(b[:])
	v.Reason = i.text(text)
	return err
}

// cookie is the one of the answer that is in the block.
func (i *instance) cookie() uint64 { return le.Uint64(i.block[abi.ResponseOffset+abi.RespCookie:]) }

// A guestError is an answer that is none, and says why.
type guestError struct{ why string }

func (e *guestError) Error() string { return "guest error: " + e.why }

// associate makes the guest's cookie the context of the flow, the first time.
func (i *instance) associate(c *fwps.Call) {
	cookie := i.cookie()
	if cookie == 0 || c.Filter == nil || c.FlowContext != 0 {
		return
	}
	if err := c.FlowAssociateContext(cookie, i.m); err != nil {
		i.m.log.Printf("callout %q: %v", i.m.name, err)
	}
}

// maxTexts bounds what an instance remembers of its reasons.
const maxTexts = 64

// text makes a string of a reason. Guests say the same again and again, so
// that remembering some saves the allocation.
func (i *instance) text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, known := i.texts[string(b)]; known {
		return s
	}
	s := string(b)
	if len(i.texts) < maxTexts {
		if i.texts == nil {
			i.texts = map[string]string{}
		}
		i.texts[s] = s
	}
	return s
}

// reasonText is what the guest says for people; it may be empty.
func reasonText(b []byte) ([]byte, error) {
	r := b[abi.ResponseOffset:]
	off, n := le.Uint32(r[abi.RespReason:]), le.Uint32(r[abi.RespReason+4:])
	switch {
	case n == 0:
		return nil, nil
	case !inside(off, n, abi.MaxReason):
		return nil, outside(off, n, abi.MaxReason, "reason")
	case !utf8.Valid(b[off : off+n]):
		return nil, errors.New("reason is not UTF-8")
	}
	return b[off : off+n], nil
}

// decodeRedirect reads where to. The response must say the same as the packed
// answer: a guest that wrote one and not the other is wrong about something.
func decodeRedirect(b *[abi.BlockSize]byte, packed uint64, c *fwps.Call, v *fwps.Verdict) error {
	r, flags := (*[abi.ResponseHeader]byte)(b[abi.ResponseOffset:]), uint32(packed>>abi.PackFlags)
	switch port, rec := le.Uint16(r[abi.RespPort:]), le.Uint32(r[abi.RespRecordLen:]); {
	case le.Uint32(r[abi.RespAction:]) != abi.ActionRedirect:
		return errors.New("the answer says redirect, the response does not")
	case port != uint16(packed>>abi.PackPort):
		return fmt.Errorf("the answer says port %d, the response %d", uint16(packed>>abi.PackPort), port)
	case rec != uint32(uint16(packed>>abi.PackRecord)):
		return fmt.Errorf("the answer says a record of %d bytes, the response %d", uint16(packed>>abi.PackRecord), rec)
	case le.Uint32(r[abi.RespFlags:]) != flags:
		return fmt.Errorf("the answer says flags %#x, the response %#x", flags, le.Uint32(r[abi.RespFlags:]))
	}
	to, err := address(r)
	if err != nil {
		return err
	}
	v.To = netip.AddrPortFrom(asOf(c.In, to), le.Uint16(r[abi.RespPort:]))
	v.Redirect, v.NoHandle, v.TargetPID = true, flags&abi.FlagNoRecord != 0, le.Uint32(r[abi.RespTargetPID:])
	v.Record, v.Context = v.Record[:0], v.Context[:0]
	if n := le.Uint32(r[abi.RespRecordLen:]); n > 0 {
		off := le.Uint32(r[abi.RespRecordOff:])
		if !inside(off, n, abi.MaxRecord) {
			return outside(off, n, abi.MaxRecord, "record")
		}
		v.Record = append(v.Record, b[off:off+n]...)
	}
	if n := le.Uint32(r[abi.RespContextLen:]); n > 0 {
		off := le.Uint32(r[abi.RespContextOff:])
		if !inside(off, n, abi.MaxContext) {
			return outside(off, n, abi.MaxContext, "context")
		}
		v.Context = append(v.Context, b[off:off+n]...)
	}
	if flags&abi.FlagKeepContext != 0 && c.Hop != nil {
		v.Context = append(v.Context[:0], c.Hop.Context...)
	}
	return nil
}

// address is the new destination.
func address(r *[abi.ResponseHeader]byte) (netip.Addr, error) {
	a := (*[16]byte)(r[abi.RespAddress:])
	switch r[abi.RespIPVersion] {
	case 4:
		if le.Uint64(a[:8]) != 0 || le.Uint32(a[8:]) != 0xffff0000 {
			return netip.Addr{}, errors.New("the new address says version 4 but is not v4-mapped")
		}
		return netip.AddrFrom4([4]byte(a[12:])), nil
	case 6:
		return netip.AddrFrom16(*a), nil
	}
	return netip.Addr{}, fmt.Errorf("the new address has IP version %d", r[abi.RespIPVersion])
}

// asOf gives an IPv4 address the form of what it replaces, which is v4-mapped where
// the socket is a dual-stack one (ALE-LAY-16).
func asOf(in *fwps.Incoming, to netip.Addr) netip.Addr {
	was := in.Remote
	if in.Layer.IsBindRedirect() {
		was = in.Local
	}
	if to.Is4() && was.Addr().Is4In6() {
		return netip.AddrFrom16(to.As16())
	}
	return to
}

// inside reports whether bytes, of which there may be so many, are in the block's
// response half.
func inside(off, n, most uint32) bool {
	return n <= most && off >= abi.ResponseOffset+abi.ResponseHeader && uint64(off)+uint64(n) <= abi.BlockSize
}

// outside says why bytes are not.
func outside(off, n, most uint32, what string) error {
	if n > most {
		return fmt.Errorf("%s of %d bytes is over the limit of %d", what, n, most)
	}
	return fmt.Errorf("%s at %d of %d bytes is outside the response", what, off, n)
}

// reason is the text a guest left, or the code when there is none.
func reason(b []byte, code int32) string {
	text, err := reasonText(b)
	if err != nil || len(text) == 0 {
		return fmt.Sprintf("code %d", code)
	}
	return string(text)
}
