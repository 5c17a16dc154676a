// Command go is the guest of the TCK in Go: it answers by the destination port.
// See ../mirror.md.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/sdk/abi"
	"github.com/calloutd/calloutd/sdk/go/callout"
)

func init() { callout.Register(new(mirror)) }

func main() {}

type mirror struct {
	config []byte
}

func (m *mirror) Capabilities() (required, optional uint32) { return 0, 0xff }

func (m *mirror) Configure(config []byte) error {
	if bytes.HasPrefix(config, []byte("!")) {
		return errors.New("refused")
	}
	m.config = config
	return nil
}

const cookie = 0x8122334455667788

func (m *mirror) Notify(e callout.Event) error {
	switch {
	case e.Kind == callout.FilterAdded && e.FilterID == 0x800000000000000d:
		return errors.New("no such filter")
	case e.Kind == callout.FlowDeleted && (e.Cookie != cookie || e.Layer != 0x44):
		return errors.New("no such flow")
	case (e.Kind == callout.FlowEstablished || e.Kind == callout.RedirectDone) && e.Connection != 0x9000000000000009:
		return errors.New("no such connection")
	}
	return nil
}

func to() callout.Verdict { return callout.Redirect(netip.MustParseAddrPort("127.0.0.1:8080"), 77) }

func (m *mirror) Classify(c *callout.Call) callout.Verdict {
	switch c.Remote.Port() {
	case 1:
		return callout.Permit()
	case 2:
		return callout.Block("no such place")
	case 3:
		return callout.Continue()
	case 4:
		return to().WithRecord(told(c)).WithContext([]byte("context"))
	case 5:
		return callout.Permit().Hard()
	case 6:
		return callout.Redirect(netip.MustParseAddrPort("[2001:db8::1]:8080"), 0).NoRecord()
	case 7:
		return to().WithRecord([]byte("again")).KeepContext()
	case 8:
		return callout.Verdict{}
	case 9:
		return to().WithRecord(make([]byte, abi.MaxRecord+1))
	case 10:
		return to().WithContext(make([]byte, abi.MaxContext+1))
	case 11:
		return to().WithRecord(bytes.Repeat([]byte("r"), abi.MaxRecord)).WithContext(bytes.Repeat([]byte("c"), abi.MaxContext))
	case 12:
		return callout.Permit().Cacheable().WithReason("because")
	case 13:
		return callout.Block("a" + strings.Repeat("é", 999))
	case 14:
		return callout.Error("it broke")
	case 15:
		return callout.Permit().WithCookie(cookie)
	}
	return to().WithRecord(m.configured())
}

var le = binary.LittleEndian

func told(c *callout.Call) (b []byte) {
	b = append(le.AppendUint16(nil, c.Layer), c.Protocol, 0)
	if c.Inbound {
		b[3] = 1
	}
	b = le.AppendUint32(b, c.Flags)
	b = le.AppendUint64(b, c.Connection)
	b = le.AppendUint64(b, c.FilterID)
	b = le.AppendUint32(b, c.Present)
	b = le.AppendUint32(b, c.PID)
	b = le.AppendUint32(b, c.UID)
	b = append(b, c.IPVersion, byte(c.State))
	b = le.AppendUint16(b, c.Local.Port())
	b = le.AppendUint16(b, c.Remote.Port())
	for _, a := range []netip.AddrPort{c.Local, c.Remote} {
		var x [16]byte
		if a.IsValid() {
			x = a.Addr().As16()
		}
		b = append(b, x[:]...)
	}
	b = le.AppendUint64(b, c.Monotonic)
	b = le.AppendUint32(b, c.Interface)
	for _, s := range []string{c.App, c.User, c.Hostname, string(c.Record)} {
		b = append(le.AppendUint32(b, uint32(len(s))), s...)
	}
	return append(le.AppendUint32(b, c.ContextSize), c.Context...)
}

func (m *mirror) configured() []byte {
	b := le.AppendUint32(le.AppendUint32(nil, callout.Granted()), uint32(len(m.config)))
	var first, last [16]byte
	copy(first[:], m.config)
	for i := range min(16, len(m.config)) {
		last[i] = m.config[len(m.config)-1-i]
	}
	return append(append(b, first[:]...), last[:]...)
}
