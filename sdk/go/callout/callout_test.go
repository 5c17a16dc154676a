package callout

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/abi"
)

type fn func(c *Call) Verdict

func (f fn) Classify(c *Call) Verdict { return f(c) }

func text(b []byte) string {
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
		"zero verdict":       {func(*Call) Verdict { return Verdict{} }, abi.ActionGuestError, "the callout gave the zero Verdict"},
		"panic":              {func(*Call) Verdict { panic("boom") }, abi.ActionGuestError, "panic: boom"},
		"too much to return": {func(*Call) Verdict { return Permit().WithRecord(make([]byte, 9000)) }, abi.ActionGuestError, "the record has 9000 bytes, the limit is 3456"},
		"too long a context": {func(*Call) Verdict { return Permit().WithContext(make([]byte, 4097)) }, abi.ActionGuestError, "the context has 4097 bytes, the limit is 4096"},
		"a long reason is cut between characters": {func(*Call) Verdict { return Block("a" + strings.Repeat("é", 600)) }, abi.ActionBlock, "a" + strings.Repeat("é", 511)},
	} {
		t.Run(name, func(t *testing.T) {
			b := make([]byte, abi.BlockSize)
			require.Equal(t, c.action, classify(c.fn, b)&0xffff)
			require.Equal(t, c.reason, text(b))
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
