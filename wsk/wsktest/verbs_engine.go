package wsktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
	"github.com/calloutd/calloutd/wsk/winsock"
)

// engineVerbs are the words about callouts, filters and what they saw.
var engineVerbs = map[string]verb{
	"callout":    {args: 1, keys: "redirect pid handle context record format hold always layer bind only-port", do: calloutWord},
	"unregister": {args: 1, do: func(w *world, s *statement) error { return w.callouts[s.args[0]].unregister() }},
	"filter":     {args: 2, keys: "port", do: filterWord},
	"remove-filters": {args: 0, do: func(w *world, _ *statement) error {
		return w.engine.Update(func(p *fwpm.Policy) error { p.Filters = nil; return nil })
	}},
	// called: how often, and in which state, a callout was asked.
	"called":   {args: 1, keys: "times state record context records last-format", do: calledWord},
	"held":     {args: 1, do: func(w *world, s *statement) error { return wait("the callout", w.callouts[s.args[0]].heldC) }},
	"complete": {args: 1, do: func(w *world, s *statement) error { w.callouts[s.args[0]].complete(); return nil }},
	"saw":      {args: 1, keys: "times remote flags app original action endpoint", do: sawWord},
	// seen: waits until a layer was asked.
	"seen": {args: 1, do: func(w *world, s *statement) error {
		return within("the classification", func() {
			for w.asked(s.args[0]) == 0 {
				runtime.Gosched()
			}
		})
	}},
	"forget": {args: 0, do: func(w *world, _ *statement) error { w.mu.Lock(); w.decisions = nil; w.mu.Unlock(); return nil }},
}

// A callout redirects what is not redirected by itself yet.
type callout struct {
	w           *world
	name        string
	to          string // an address or @name, read when a call comes
	pid         uint32
	noHandle    bool
	always      bool // also its own
	record      []byte
	context     []byte
	format      []string // buffer sizes to ask the SIO format with
	hold        bool
	port        uint16 // asks of others are continued
	unregister  func() error
	heldC       chan struct{}
	mu          sync.Mutex
	seen        []sight
	formats     []string
	pended      *fwps.PendedClassify
	verdictHeld fwps.Verdict
}

type sight struct {
	state   redirect.State
	record  []byte
	context []byte
	records int
}

func calloutWord(w *world, s *statement) error {
	c := &callout{w: w, name: s.args[0], to: s.keys["redirect"], noHandle: s.keys["handle"] == "none", always: s.keys["always"] == "yes",
		hold: s.keys["hold"] == "yes", heldC: make(chan struct{})}
	var err error
	if v, ok := s.keys["pid"]; ok {
		n, nerr := w.number(v)
		c.pid, err = uint32(n), errors.Join(err, nerr)
	}
	if v, ok := s.keys["only-port"]; ok {
		n, nerr := w.number(v)
		c.port, err = uint16(n), errors.Join(err, nerr)
	}
	for key, into := range map[string]*[]byte{"record": &c.record, "context": &c.context} {
		if v, ok := s.keys[key]; ok {
			b, berr := w.blob(v)
			*into, err = b, errors.Join(err, berr)
		}
	}
	if v, ok := s.keys["format"]; ok {
		c.format = strings.Split(v, ",")
	}
	if err != nil {
		return err
	}
	_, c.unregister, err = w.engine.RegisterCallout(fwpm.CalloutID(c.name), c)
	if err != nil {
		return err
	}
	w.callouts[c.name] = c
	layers := []fwpm.LayerID{fwpm.LayerALEConnectRedirectV4, fwpm.LayerALEConnectRedirectV6}
	if s.keys["layer"] == "bind" {
		layers = []fwpm.LayerID{fwpm.LayerALEBindRedirectV4, fwpm.LayerALEBindRedirectV6}
	}
	return w.engine.Update(func(p *fwpm.Policy) error {
		sub := fwpm.SublayerID("of-" + c.name)
		p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: sub, Name: c.name, Weight: uint16(0xF000 - len(w.callouts))})
		p.Callouts = append(p.Callouts, fwpm.Callout{ID: fwpm.CalloutID(c.name), Name: c.name})
		for _, l := range layers {
			w.filters++
			p.Filters = append(p.Filters, fwpm.Filter{ID: fwpm.FilterID(w.filters), Name: c.name, Layer: l, Sublayer: sub,
				Action: fwp.ActionCalloutUnknown, Callout: fwpm.CalloutID(c.name)})
		}
		return nil
	})
}

// Classify implements fwps.Callout.
func (c *callout) Classify(_ context.Context, call *fwps.Call, v *fwps.Verdict) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := sight{state: call.State, records: len(call.In.Records)}
	if call.Hop != nil {
		x.record, x.context = bytes.Clone(call.Hop.Record), bytes.Clone(call.Hop.Context)
	}
	c.seen = append(c.seen, x)
	own := call.State == redirect.RedirectedBySelf || call.State == redirect.PreviouslyRedirectedBySelf
	v.Action = fwp.ActionPermit
	if own && !c.always || c.port != 0 && call.In.Remote.Port() != c.port || c.to == "" {
		return nil
	}
	to, err := c.target(call)
	if err != nil {
		return err
	}
	for _, size := range c.format {
		c.ask(call, size)
	}
	c.fill(v, to)
	if c.hold && c.pended == nil {
		p, err := call.PendClassify()
		if err != nil {
			return err
		}
		c.pended = p
		c.fill(&c.verdictHeld, to)
		close(c.heldC)
	}
	return nil
}

func (c *callout) fill(v *fwps.Verdict, to netip.AddrPort) {
	v.Action, v.Redirect, v.To, v.TargetPID, v.NoHandle = fwp.ActionPermit, true, to, c.pid, c.noHandle
	v.Record, v.Context = append(v.Record[:0], c.record...), append(v.Context[:0], c.context...)
}

func (c *callout) target(call *fwps.Call) (netip.AddrPort, error) {
	to, err := c.w.addr(c.to)
	if r := call.In.Remote.Addr(); r.Is4In6() && to.Addr().Is4() {
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	return to, err
}

// ask is FwpsQueryConnectionSioFormatRedirectRecords0 with a buffer of a size:
// a number, or exact.
func (c *callout) ask(call *fwps.Call, size string) {
	var buf []byte
	n, _ := call.QuerySIOFormatRedirectRecords(nil)
	switch size {
	case "exact":
		buf = make([]byte, n)
	case "short":
		buf = make([]byte, n-1)
	}
	n, st := call.QuerySIOFormatRedirectRecords(buf)
	c.formats = append(c.formats, fmt.Sprintf("%v:%v", st, n > 0))
	if st == ntstatus.Success {
		c.w.mu.Lock()
		c.w.blobs["format-"+c.name] = buf
		c.w.mu.Unlock()
	}
}

func (c *callout) complete() {
	c.mu.Lock()
	p, v := c.pended, c.verdictHeld
	c.mu.Unlock()
	p.Complete(&v)
}

func calledWord(w *world, s *statement) error {
	c := w.callouts[s.args[0]]
	c.mu.Lock()
	defer c.mu.Unlock()
	got := map[string]any{"times": len(c.seen), "last-format": strings.Join(c.formats, ",")}
	if n := len(c.seen); n > 0 {
		x := c.seen[n-1]
		got["state"], got["record"], got["context"], got["records"] = x.state.String(), x.record, x.context, x.records
	}
	return w.sameAll(s, got)
}

// filterWord is: filter LAYER block|permit
func filterWord(w *world, s *statement) error {
	l, ok := fwpm.ParseLayer(s.args[0])
	action, known := map[string]fwp.Action{"block": fwp.ActionBlock, "permit": fwp.ActionPermit}[s.args[1]]
	if !ok || !known {
		return errors.New("a layer, and block or permit")
	}
	return w.engine.Update(func(p *fwpm.Policy) error {
		w.filters++
		f := fwpm.Filter{ID: fwpm.FilterID(w.filters), Name: s.pos, Layer: l, Action: action}
		if v, ok := s.keys["port"]; ok {
			n, err := w.number(v)
			if err != nil {
				return err
			}
			f.Conditions = []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.Value{Type: fwp.Uint16, Uint: uint64(n)}}}
		}
		p.Filters = append(p.Filters, f)
		return nil
	})
}

// sawWord counts the classifications of a layer that are as the keys say.
func sawWord(w *world, s *statement) error {
	if _, ok := fwpm.ParseLayer(s.args[0]); !ok {
		return fmt.Errorf("%q is no layer", s.args[0])
	}
	remote := ""
	if v, ok := s.keys["remote"]; ok {
		a, err := w.addr(v)
		if err != nil {
			return err
		}
		remote = a.String()
	}
	endpoint := 0
	if v, ok := s.keys["endpoint"]; ok {
		var err error
		if endpoint, err = w.number(v); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.decisions {
		if d.layer == s.args[0] && (remote == "" || d.remote == remote) && has(d.app, s.keys["app"]) && has(d.original, s.keys["original"]) &&
			has(d.action, s.keys["action"]) && flagged(d.flags, s.keys["flags"]) && (endpoint == 0 || d.endpoint == endpoint) {
			n++
		}
	}
	want := s.keys["times"]
	if want == "" {
		want = "1"
	}
	if err := w.sameNumber(want, n); err != nil {
		return fmt.Errorf("times: %w; there were:\n%s", err, w.story())
	}
	return nil
}

func (w *world) asked(layer string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, d := range w.decisions {
		if d.layer == layer {
			n++
		}
	}
	return n
}

func has(got, want string) bool { return want == "" || got == want }

// flagged compares flags; a leading ! is one that must not be there.
func flagged(got, want string) bool {
	for _, f := range strings.Split(want, ",") {
		f, not := strings.CutPrefix(f, "!")
		if f != "" && strings.Contains("|"+got+"|", "|"+f+"|") == not {
			return false
		}
	}
	return true
}

func (w *world) story() string {
	var b strings.Builder
	for _, d := range w.decisions {
		fmt.Fprintf(&b, "  %s %s app=%s original=%s flags=%s %s\n", d.layer, d.remote, d.app, d.original, d.flags, d.action)
	}
	return b.String()
}

// userVerbs are the words of user mode.
var userVerbs = map[string]verb{
	"wsaioctl": {args: 2, keys: "in out overlapped returned not-found", wants: "bytes untouched save data", do: wsaIoctlWord},
	"wsagetsockopt": {args: 2, wants: "bytes is", do: func(w *world, s *statement) error {
		buf := make([]byte, 128)
		o := socketOptions[s.args[1]]
		n, e := winsock.Socket{WSK: w.socket(s.args[0])}.Getsockopt(o[0], o[1], buf)
		if err := sameError(s.want, e); err != nil {
			return err
		}
		a, _ := wsk.ParseSockaddr(buf)
		for k, v := range s.wants {
			if err := w.same(v, map[string]any{"bytes": n, "is": a}[k]); err != nil {
				return err
			}
		}
		return nil
	}},
	"control-data": {args: 1, keys: "level type", do: controlDataWord},
}

func sameError(want string, got winsock.Error) error {
	if want == "" {
		want = "success"
	}
	for _, name := range strings.Split(want, "|") {
		if got.Error() == name {
			return nil
		}
	}
	return fmt.Errorf("error %v (%d), want %s", got, uint32(got), want)
}

func wsaIoctlWord(w *world, s *statement) error {
	code, _, err := w.code(wsk.Ioctl, s.args[1])
	if err != nil {
		return err
	}
	var in []byte
	if v, ok := s.keys["in"]; ok {
		if in, err = w.blob(v); err != nil {
			return err
		}
	}
	out, err := w.buffer(s.keys["out"])
	if err != nil {
		return err
	}
	fill := bytes.Clone(out)
	sock := winsock.Socket{WSK: w.socket(s.args[0])}
	if s.keys["not-found"] == "1168" {
		sock.NotFound = winsock.ErrorNotFound
	}
	var n uint32
	returned := &n
	if s.keys["returned"] == "no" {
		returned = nil
	}
	var e winsock.Error
	if s.keys["overlapped"] == "yes" {
		if e, n, err = overlapped(sock, code, in, out); err != nil {
			return err
		}
	} else {
		e = sock.WSAIoctl(code, in, out, returned, nil, nil)
	}
	if err := sameError(s.want, e); err != nil {
		return err
	}
	for k, v := range s.wants {
		switch k {
		case "bytes":
			err = w.sameNumber(v, int(n))
		case "save":
			w.blobs[strings.TrimPrefix(v, "$")] = bytes.Clone(out[:n])
		case "data":
			err = w.same(v, out[:n])
		case "untouched":
			err = w.untouched(v, &pending{out: out, fill: fill})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// overlapped makes the call with an overlapped structure and waits for its
// completion routine.
func overlapped(sock winsock.Socket, code uint32, in, out []byte) (winsock.Error, uint32, error) {
	o, done := new(winsock.Overlapped), make(chan struct{})
	var late winsock.Error
	var n uint32
	e := sock.WSAIoctl(code, in, out, nil, o, func(err winsock.Error, bytes uint32, _ *winsock.Overlapped) {
		late, n = err, bytes
		close(done)
	})
	if err := wait("the overlapped call", done); err != nil {
		return 0, 0, err
	}
	if e != winsock.WSAIOPending && e != late {
		return 0, 0, fmt.Errorf("the call returned %v, its completion %v", e, late)
	}
	if m, err := o.Result(true); err != late || m != n {
		return 0, 0, fmt.Errorf("WSAGetOverlappedResult says %v and %d bytes, the routine %v and %d", err, m, late, n)
	}
	return late, n, nil
}

// controlDataWord writes records as control data and reads them back.
func controlDataWord(w *world, s *statement) error {
	data, err := w.blob(s.args[0])
	if err != nil {
		return err
	}
	level, err1 := w.number(s.keys["level"])
	typ, err2 := w.number(s.keys["type"])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	b := winsock.AppendControl(nil, wsk.ControlMessage{Level: uint32(level), Type: uint32(typ), Data: data},
		wsk.ControlMessage{Level: uint32(level), Type: uint32(typ), Data: []byte("x")})
	back, err := winsock.ParseControl(b)
	if err != nil || len(back) != 2 || !bytes.Equal(back[0].Data, data) || back[0].Type != uint32(typ) || back[0].Level != uint32(level) {
		return fmt.Errorf("%v %v", back, err)
	}
	return nil
}
