package callout

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/abi"
)

type fn func(c *Call) Verdict

func (f fn) Classify(c *Call) Verdict { return f(c) }

var le = binary.LittleEndian

// The structs lie in the block where the ABI says.
func TestLayout(t *testing.T) {
	var q request
	var r response
	for at, want := range map[uintptr]uintptr{
		unsafe.Sizeof(q): abi.RequestHeader, unsafe.Sizeof(r): abi.ResponseHeader,
	} {
		require.Equal(t, want, at)
	}
	for name, o := range map[string][2]uintptr{
		"layer": {unsafe.Offsetof(q.layer), abi.ReqLayer}, "present": {unsafe.Offsetof(q.present), abi.ReqPresent},
		"flags": {unsafe.Offsetof(q.flags), abi.ReqConditionFlags}, "connection": {unsafe.Offsetof(q.connection), abi.ReqConnection},
		"filter": {unsafe.Offsetof(q.filter), abi.ReqFilter}, "pid": {unsafe.Offsetof(q.pid), abi.ReqPID}, "uid": {unsafe.Offsetof(q.uid), abi.ReqUID},
		"version": {unsafe.Offsetof(q.version), abi.ReqIPVersion}, "protocol": {unsafe.Offsetof(q.protocol), abi.ReqProtocol},
		"local port": {unsafe.Offsetof(q.localPort), abi.ReqLocalPort}, "remote port": {unsafe.Offsetof(q.remotePort), abi.ReqRemotePort},
		"state": {unsafe.Offsetof(q.state), abi.ReqRedirectState}, "direction": {unsafe.Offsetof(q.direction), abi.ReqDirection},
		"local": {unsafe.Offsetof(q.local), abi.ReqLocal}, "remote": {unsafe.Offsetof(q.remote), abi.ReqRemote},
		"app": {unsafe.Offsetof(q.app), abi.ReqApp}, "user": {unsafe.Offsetof(q.user), abi.ReqUser},
		"record": {unsafe.Offsetof(q.record), abi.ReqRecord}, "context": {unsafe.Offsetof(q.context), abi.ReqContext},
		"monotonic": {unsafe.Offsetof(q.monotonic), abi.ReqMonotonic}, "interface": {unsafe.Offsetof(q.iface), abi.ReqInterface},
		"hostname": {unsafe.Offsetof(q.hostname), abi.ReqHostname},
		"action":   {unsafe.Offsetof(r.action), abi.RespAction}, "answer flags": {unsafe.Offsetof(r.flags), abi.RespFlags},
		"port": {unsafe.Offsetof(r.port), abi.RespPort}, "new version": {unsafe.Offsetof(r.version), abi.RespIPVersion},
		"target": {unsafe.Offsetof(r.pid), abi.RespTargetPID}, "address": {unsafe.Offsetof(r.address), abi.RespAddress},
		"record length": {unsafe.Offsetof(r.recordLen), abi.RespRecordLen}, "context length": {unsafe.Offsetof(r.contextLen), abi.RespContextLen},
		"record offset": {unsafe.Offsetof(r.recordOff), abi.RespRecordOff}, "context offset": {unsafe.Offsetof(r.contextOff), abi.RespContextOff},
		"reason": {unsafe.Offsetof(r.reason), abi.RespReason}, "cookie": {unsafe.Offsetof(r.cookie), abi.RespCookie},
	} {
		require.Equal(t, o[1], o[0], name)
	}
}

func reasonOf(b []byte) string {
	r := b[abi.ResponseOffset:]
	off, n := le.Uint32(r[abi.RespReason:]), le.Uint32(r[abi.RespReason+4:])
	return string(b[off : off+n])
}

func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		fn     fn
		action uint64
		reason string
	}{
		"permit":             {func(*Call) Verdict { return Permit() }, abi.ActionPermit, ""},
		"block":              {func(*Call) Verdict { return Block("no") }, abi.ActionBlock, "no"},
		"continue":           {func(*Call) Verdict { return Continue() }, abi.ActionContinue, ""},
		"zero verdict":       {func(*Call) Verdict { return Verdict{} }, abi.ActionGuestError, "the callout gave no verdict"},
		"panic":              {func(*Call) Verdict { panic("boom") }, abi.ActionGuestError, "panic: boom"},
		"too much to return": {func(*Call) Verdict { return Permit().WithRecord(make([]byte, 9000)) }, abi.ActionGuestError, "the record is over the limit of 3456 bytes"},
		"too long a context": {func(*Call) Verdict { return Permit().WithContext(make([]byte, 4097)) }, abi.ActionGuestError, "the context is over the limit of 4096 bytes"},
		"a long reason is cut between characters": {func(*Call) Verdict { return Block("a" + strings.Repeat("é", 600)) }, abi.ActionBlock, "a" + strings.Repeat("é", 511)},
	} {
		t.Run(name, func(t *testing.T) {
			b := make([]byte, abi.BlockSize)
			require.Equal(t, c.action, classify(c.fn, b)&0xffff)
			require.Equal(t, c.reason, reasonOf(b))
		})
	}
}

func TestRedirect(t *testing.T) {
	b := make([]byte, abi.BlockSize)
	packed := classify(fn(func(*Call) Verdict {
		return Redirect(netip.MustParseAddrPort("127.0.0.1:8080"), 7).WithRecord([]byte("rec")).WithContext([]byte("context")).Hard()
	}), b)
	require.EqualValues(t, abi.ActionRedirect, packed&0xffff)
	require.EqualValues(t, 8080, packed>>abi.PackPort&0xffff)
	require.EqualValues(t, 3, packed>>abi.PackRecord&0xffff)
	require.EqualValues(t, abi.FlagHard, packed>>abi.PackFlags)
	r := b[abi.ResponseOffset:]
	off := binary.LittleEndian.Uint32(r[abi.RespContextOff:])
	require.Equal(t, "context", string(b[off:off+7]))
}

func FuzzHostileRequest(f *testing.F) {
	f.Add(make([]byte, 128))
	f.Fuzz(func(t *testing.T, req []byte) {
		b := make([]byte, abi.BlockSize)
		copy(b[:abi.ResponseOffset], req)
		a := classify(fn(func(*Call) Verdict { return Permit() }), b) & 0xffff
		if a != abi.ActionPermit && a != abi.ActionGuestError {
			t.Fatalf("action %d", a)
		}
	})
}

type configured struct{ got string }

func (c *configured) Classify(*Call) Verdict        { return Permit() }
func (c *configured) Configure(config []byte) error { c.got = string(config); return nil }

func TestConfigureInChunks(t *testing.T) {
	c := new(configured)
	Register(c)
	b := make([]byte, abi.BlockSize)
	copy(b, "ab")
	require.Zero(t, configure(registered, b, 2|abi.InitMore))
	require.Zero(t, configure(registered, b, 1))
	require.Equal(t, "aba", c.got)
	require.Empty(t, pending)
	require.EqualValues(t, -1, configure(fn(nil), b, 1), "a callout without Configure takes none")
}

type hearing struct {
	fn
	heard []Event
}

func (h *hearing) Notify(e Event) error {
	h.heard = append(h.heard, e)
	if e.FilterID == 13 {
		return errors.New("unlucky")
	}
	return nil
}

func (h *hearing) Capabilities() (required, optional uint32) { return abi.CapLog, abi.CapKV }

func TestNotify(t *testing.T) {
	h, b := new(hearing), make([]byte, abi.BlockSize)
	binary.LittleEndian.PutUint64(b[abi.ReqFilter:], 13)
	binary.LittleEndian.PutUint16(b[abi.ReqLayer:], 48)
	binary.LittleEndian.PutUint64(b[abi.ResponseOffset+abi.RespCookie:], 77)
	require.EqualValues(t, -1, notify(h, b, FilterAdded))
	require.Equal(t, "unlucky", reasonOf(b))
	require.Equal(t, []Event{{Kind: FilterAdded, Layer: 48, FilterID: 13, Cookie: 77}}, h.heard)
	require.EqualValues(t, abi.NotifyNone, notify(fn(nil), b, FilterAdded), "nobody listens")
}

func TestCapabilities(t *testing.T) {
	require.EqualValues(t, abi.CapLog|abi.CapKV<<32, capabilities(new(hearing)))
	require.Zero(t, capabilities(fn(nil)))
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	b := make([]byte, abi.BlockSize)
	app := "/usr/bin/curl"
	binary.LittleEndian.PutUint32(b[abi.ReqApp:], abi.RequestHeader)
	binary.LittleEndian.PutUint32(b[abi.ReqApp+4:], uint32(copy(b[abi.RequestHeader:], app)))
	co := Callout(fn(func(c *Call) Verdict {
		if c.App != app {
			return Verdict{}
		}
		return Redirect(netip.MustParseAddrPort("127.0.0.1:8080"), 7).WithRecord(b[:16])
	}))
	require.EqualValues(t, abi.ActionRedirect, classify(co, b)&0xffff)
	require.Zero(t, testing.AllocsPerRun(100, func() { classify(co, b) }))
}

func TestNativelyThereIsNoHost(t *testing.T) {
	_, err := Get([]byte("k"), nil)
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorIs(t, Log(Info, "x"), ErrUnsupported)
	_, err = Wall()
	require.ErrorIs(t, err, ErrUnsupported)
	_, err = Names()
	require.ErrorIs(t, err, ErrUnsupported)
	require.Equal(t, "not possible now", ErrUnsupported.Error())
}
