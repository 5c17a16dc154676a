package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A sock is a socket of the script.
type sock struct {
	name string
	s    *ale.Socket
	in   fwps.Incoming
	flow *ale.Flow
}

// commands are the words that a script line can begin with.
var commands map[string]func(w *world, a *args) error

func init() {
	commands = map[string]func(*world, *args) error{
		"socket": (*world).socket, "bind": (*world).bind, "listen": (*world).listen, "connect": (*world).connect,
		"accept": (*world).accept, "send": (*world).send, "receive": (*world).receive, "packet": (*world).packet,
		"records": (*world).records, "set": (*world).set, "state": (*world).state, "close": (*world).close, "live": (*world).live,
		"start": (*world).start, "wait": (*world).wait, "complete": (*world).complete, "advance": (*world).advance,
		"classify": (*world).classify, "add": (*world).add, "delete": (*world).delete, "register": (*world).registerCommand,
		"unregister": (*world).unregisterCommand, "layers": (*world).layers, "layer": (*world).layer, "fields": (*world).fields, "condition": (*world).condition, "abort": (*world).abort,
		"remove-context": (*world).removeContext, "order": (*world).filterOrder, "detach": (*world).detach,
		"create-handle": (*world).createHandle, "destroy-handle": (*world).destroyHandle, "context": (*world).context, "loop": (*world).loop, "forge": (*world).forge, "original": (*world).original, "icmp-send": (*world).icmpSend, "icmp-receive": (*world).icmpReceive,
		"reinject": (*world).reinject,
	}
}

// run carries the script out.
func (w *world) run(s section) error {
	lines := s.lines()
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		a := newArgs(l)
		word, _ := a.next("a command")
		f := commands[word]
		if f == nil {
			return l.errorf("command %q is unknown", word)
		}
		for i+1 < len(lines) && lines[i+1].deep { // conditions of an added filter
			i++
			a.rest = append(a.rest, "\n", lines[i].text)
		}
		w.printf("> %s", l.text)
		if err := f(w, a); err != nil {
			return err
		}
		if err := a.end(); err != nil {
			return err
		}
	}
	return nil
}

// result prints how a command ended.
func (w *world) result(err error, ok string, args ...any) {
	var b *ale.BlockedError
	switch {
	case err == nil:
		w.printf("= "+ok, args...)
	case errors.As(err, &b):
		w.printf("= blocked by %s at %s %s: %s", blocker(b), short(b.Layer), b.Rule, b.Why)
	default:
		w.printf("= %s", statusOf(err))
	}
}

func blocker(b *ale.BlockedError) string {
	switch {
	case b.Filter == 0:
		return "host"
	case b.Callout != "":
		return fmt.Sprintf("filter %d (callout %s)", b.Filter, b.Callout)
	}
	return fmt.Sprintf("filter %d", b.Filter)
}

// statusOf prints an error by the name of its code.
func statusOf(err error) string {
	var e fwp.Error
	var o *fwpm.ObjectError
	var st ntstatus.Status
	var no syscall.Errno
	switch {
	case errors.As(err, &o):
		errors.As(err, &e)
		return fmt.Sprintf("%s: %s %s %s", e.Name(), o.Kind, o.ID, o.Field)
	case errors.As(err, &e):
		return e.Name()
	case errors.As(err, &st):
		return st.Error()
	case errors.As(err, &no):
		return no.Error()
	}
	return err.Error()
}

func (w *world) sock(a *args) (*sock, error) {
	name, err := a.next("a socket")
	if err != nil {
		return nil, err
	}
	s := w.sockets[name]
	if s == nil {
		return nil, a.l.errorf("there is no socket %q", name)
	}
	return s, nil
}

func address(a *args) (netip.AddrPort, error) {
	s, err := a.next("an address and a port")
	if err != nil {
		return netip.AddrPort{}, err
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		return at, a.l.errorf("%q is no address with a port", s)
	}
	return at, nil
}

var protocols = map[string]uint8{"tcp": fwps.ProtocolTCP, "udp": fwps.ProtocolUDP, "icmp": fwps.ProtocolICMP, "icmp6": fwps.ProtocolICMPv6, "sctp": 132}

// socket NAME PROTOCOL [v6] [raw] [header-include] [system-binds] [pid=] [uid=] [app=]
//
// A socket that the system binds has no address until it is used.
func (w *world) socket(a *args) error {
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	proto, err := a.next("a protocol")
	if err != nil {
		return err
	}
	if protocols[proto] == 0 {
		return a.l.errorf("protocol %q is unknown", proto)
	}
	o, err := a.options("v6 raw header-include system-binds", "pid uid app")
	if err != nil {
		return err
	}
	in := fwps.Incoming{Protocol: protocols[proto], AppID: "/bin/" + name, ProcessID: number(o["pid"], 100), HeaderInclude: o["header-include"] != ""}
	in.Local = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if o["v6"] != "" {
		in.Local = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	if o["raw"] != "" {
		in.Flags = fwp.FlagIsRawEndpoint
	}
	if o["app"] != "" {
		in.AppID = o["app"]
	}
	if o["uid"] != "" {
		in.UserID, in.UserKnown = number(o["uid"], 0), true
	}
	s := &sock{name: name, s: w.ale.NewSocket(in), in: in}
	if o["system-binds"] == "" {
		s.s.OnImplicitBind(w.bindTo)
	}
	w.sockets[name] = s
	return nil
}

func number(s string, otherwise uint32) uint32 {
	if n, err := strconv.ParseUint(s, 0, 32); err == nil {
		return uint32(n)
	}
	return otherwise
}

func (w *world) bind(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	at, err := address(a)
	if err != nil {
		return err
	}
	local, err := s.s.Bind(context.Background(), at, w.bindTo)
	w.result(err, "bound to %s", local)
	return nil
}

func (w *world) bindTo(_ context.Context, want netip.AddrPort) (netip.AddrPort, error) {
	w.act("bind to %s", want)
	return w.net.bind(want), nil
}

// listen NAME ADDRESS binds and listens.
func (w *world) listen(a *args) error {
	name := ""
	if len(a.rest) > 0 {
		name = a.rest[0]
	}
	if err := w.bind(a); err != nil {
		return err
	}
	s := w.sockets[name]
	if !s.s.LocalAddr().IsValid() {
		return nil
	}
	err := s.s.Listen(context.Background(), func() error {
		w.act("listen at %s", s.s.LocalAddr())
		w.net.listening[s.s.LocalAddr()] = []arrival{}
		return nil
	})
	w.result(err, "listening")
	return nil
}

// connect NAME ADDRESS [in-progress]
func (w *world) connect(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	to, err := address(a)
	if err != nil {
		return err
	}
	o, err := a.options("in-progress", "")
	if err != nil {
		return err
	}
	connect := w.connectTo(s.s)
	switch {
	case s.in.Protocol != fwps.ProtocolTCP:
		connect = func(_ context.Context, t ale.Target) (netip.AddrPort, error) {
			w.act("connect to %s, %d hops kept", t.Remote, w.ale.LiveHops())
			return w.net.source(s.s.LocalAddr(), t.Remote)
		}
	case o["in-progress"] != "":
		finish := connect
		connect = func(ctx context.Context, t ale.Target) (netip.AddrPort, error) {
			local, err := finish(ctx, t)
			return local, cmp.Or(err, ale.ErrInProgress)
		}
	}
	f, err := s.s.Connect(context.Background(), to, connect)
	switch {
	case f != nil:
		s.flow = f
		w.printf("= connected %s -> %s", f.Local, f.Remote)
	default:
		w.result(err, "connected")
	}
	return nil
}

// connectTo lets a connection go on the network.
func (w *world) connectTo(s *ale.Socket) ale.ConnectFunc {
	return func(_ context.Context, t ale.Target) (netip.AddrPort, error) {
		w.act("connect to %s, %d hops kept", t.Remote, w.ale.LiveHops())
		return w.net.connect(s.LocalAddr(), t)
	}
}

// accept LISTENER NAME
func (w *world) accept(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	name, err := a.next("a name")
	if err != nil {
		return err
	}
	at, err := w.net.accept(s.s.LocalAddr())
	if err != nil {
		return a.l.errorf("%w", err)
	}
	f, err := s.s.Accept(context.Background(), at.to, at.from)
	if err == nil {
		w.sockets[name] = &sock{name: name, s: s.s, in: s.in, flow: f}
	}
	w.result(err, "accepted %s", at.from)
	return nil
}

// send NAME [ADDRESS]
func (w *world) send(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	var to netip.AddrPort
	if len(a.rest) > 0 {
		if to, err = address(a); err != nil {
			return err
		}
	}
	target, f, created, err := s.s.SendTo(context.Background(), to)
	if err == nil {
		if from, err2 := w.net.source(s.s.LocalAddr(), target); err2 == nil {
			w.net.send(from, target)
		}
		s.flow = f
	}
	w.result(err, "sent to %s%s", target, newFlow(created))
	return nil
}

func newFlow(created bool) string {
	if created {
		return " in a new flow"
	}
	return ""
}

func (w *world) receive(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	d, err := w.net.receive(s.s.LocalAddr())
	if err != nil {
		return a.l.errorf("%w", err)
	}
	source, f, created, err := s.s.ReceiveFrom(context.Background(), d.from)
	if err == nil {
		s.flow = f
	}
	w.result(err, "received from %s%s", source, newFlow(created))
	return nil
}

// packet NAME: the next packet of a connection, in either direction.
func (w *world) packet(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	if s.flow == nil {
		return a.l.errorf("socket %q has no flow", s.name)
	}
	w.result(s.flow.Reauthorize(context.Background()), "passes")
	return nil
}

func hops(rs redirect.Records) string {
	if len(rs) == 0 {
		return "no records"
	}
	var out []string
	for _, h := range rs {
		s := h.Original.String()
		if h.Target.IsValid() { // One that was promised only has none yet.
			s += "->" + h.Target.String()
		}
		if h.Callout != "" {
			s = h.Callout + " " + s
		}
		if len(h.Context) > 0 {
			s += fmt.Sprintf(" context=%q", h.Context)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// records NAME [VAR]: what the accepted socket's query says, kept sealed in VAR.
func (w *world) records(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	if s.flow == nil {
		return a.l.errorf("socket %q has no flow", s.name)
	}
	if len(a.rest) > 0 {
		name, _ := a.next("a variable")
		if w.vars[name], err = w.ale.Seal(s.flow.Records); err != nil {
			return a.l.errorf("%w", err)
		}
	}
	w.printf("= %s", hops(s.flow.Records))
	return nil
}

// context NAME: what the accepted socket's query of the context says.
func (w *world) context(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	if s.flow == nil {
		return a.l.errorf("socket %q has no flow", s.name)
	}
	if h := s.flow.Records.Last(); h != nil && len(h.Context) > 0 {
		w.printf("= %q", h.Context)
		return nil
	}
	w.printf("= no context")
	return nil
}

// loop LISTENER ADDRESS N: the proxy that listens accepts a connection to ADDRESS,
// sets its records and connects there, again and again until there are N hops or
// it may not. Only the end is printed.
func (w *world) loop(a *args) error {
	proxy, err := w.sock(a)
	if err != nil {
		return err
	}
	to, err := address(a)
	if err != nil {
		return err
	}
	n, err := a.next("a number")
	if err != nil {
		return err
	}
	w.mu.Lock()
	before := w.trace.String()
	w.mu.Unlock()
	only := func(err error, ok string, args ...any) {
		w.mu.Lock()
		w.trace.Reset()
		w.trace.WriteString(before)
		w.mu.Unlock()
		w.result(err, ok, args...)
	}
	var records redirect.Records
	for i := 1; ; i++ {
		s := w.ale.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"), AppID: "/bin/" + proxy.name, Records: records})
		defer s.Close()
		out, err := s.Connect(context.Background(), to, w.connectTo(s))
		if err != nil {
			only(err, "")
			return nil
		}
		defer out.Close()
		at, err := w.net.accept(proxy.s.LocalAddr())
		if err != nil {
			return a.l.errorf("%w", err)
		}
		in, err := proxy.s.Accept(context.Background(), at.to, at.from)
		if err != nil {
			only(err, "")
			return nil
		}
		defer in.Close()
		if i == int(number(n, 0)) {
			only(nil, "%d hops", len(in.Records))
			return nil
		}
		sealed, err := w.ale.Seal(in.Records)
		if err != nil {
			return a.l.errorf("%w", err)
		}
		if records, err = w.ale.Open(sealed); err != nil {
			return a.l.errorf("%w", err)
		}
	}
}

// set NAME VAR
func (w *world) set(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	name, err := a.next("a variable")
	if err != nil {
		return err
	}
	rs, err := w.ale.Open(w.vars[name])
	if err == nil {
		s.s.SetRecords(rs)
	}
	w.result(err, "set: %s", hops(rs))
	return nil
}

// forge NEW VAR: sealed records with one bit changed.
func (w *world) forge(a *args) error {
	name, err := a.next("a new variable")
	if err != nil {
		return err
	}
	from, err := a.next("a variable")
	if err != nil {
		return err
	}
	if len(w.vars[from]) == 0 {
		return a.l.errorf("variable %q is empty", from)
	}
	b := bytes.Clone(w.vars[from])
	b[len(b)/2] ^= 1
	w.vars[name] = b
	return nil
}

// original NAME: what SO_ORIGINAL_DST says on it.
func (w *world) original(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	if s.flow == nil || !s.flow.Original.IsValid() {
		w.printf("= none")
		return nil
	}
	w.printf("= %s", s.flow.Original)
	return nil
}

// state CALLOUT HOP...: FwpsQueryConnectionRedirectState0 for records of hops of
// the named callouts.
func (w *world) state(a *args) error {
	name, err := a.next("a callout")
	if err != nil {
		return err
	}
	var rs redirect.Records
	for i, hop := range a.rest {
		rs = rs.With(&redirect.Hop{Serial: uint64(i + 1), Handle: w.handles[hop], Context: []byte(fmt.Sprintf("%s%d", hop, i+1))})
	}
	a.rest = nil
	st, h := rs.State(w.handles[name])
	if h != nil {
		w.printf("= %s context=%q", st, h.Context)
		return nil
	}
	w.printf("= %s no context", st)
	return nil
}

// close NAME: its connection, and the socket unless it is the listener's. What a
// callout holds of it ends.
func (w *world) close(a *args) error {
	s, err := w.sock(a)
	if err != nil {
		return err
	}
	delete(w.sockets, s.name)
	shut := func() {
		if s.flow != nil {
			s.flow.Close()
		}
		if s.flow == nil || !s.flow.Accepted() || s.in.Protocol != fwps.ProtocolTCP {
			s.s.Close()
		}
	}
	if j := w.jobs[s.name]; j != nil && !j.done && j != w.running {
		return w.resume(a.l, j, shut)
	}
	shut()
	return nil
}

func (w *world) detach(a *args) error {
	s, err := w.sock(a)
	if err == nil && s.flow != nil {
		s.flow.Detach()
	}
	return err
}

// live prints how many hops the store holds.
func (w *world) live(*args) error {
	w.printf("= %d hops", w.ale.LiveHops())
	return nil
}

func (w *world) advance(a *args) error {
	s, err := a.next("a duration")
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return a.l.errorf("%w", err)
	}
	w.clock = w.clock.Add(d)
	return nil
}

// classify LAYER LOCAL [-> REMOTE] [key=value...]: one layer, asked directly.
func (w *world) classify(a *args) error {
	name, err := a.next("a layer")
	if err != nil {
		return err
	}
	in := fwps.Incoming{Protocol: fwps.ProtocolTCP, AppID: "/bin/app", OriginalAppID: "/bin/app", ProcessID: 100}
	if in.Layer, err = readLayer(a.l, name); err != nil {
		return err
	}
	if in.Local, err = address(a); err != nil {
		return err
	}
	if len(a.rest) > 0 && a.rest[0] == "->" {
		a.rest = a.rest[1:]
		if in.Remote, err = address(a); err != nil {
			return err
		}
	}
	for _, word := range a.rest {
		if err := w.field(a.l, &in, word); err != nil {
			return err
		}
	}
	a.rest = nil
	traced{w, w.classifier}.Classify(context.Background(), &in, new(fwps.Decision))
	return nil
}

func (w *world) field(l line, in *fwps.Incoming, word string) error {
	k, v, _ := strings.Cut(word, "=")
	switch k {
	case "proto":
		in.Protocol = protocols[v]
	case "app":
		in.AppID = v
	case "original-app":
		in.OriginalAppID = v
	case "uid":
		in.UserID, in.UserKnown = number(v, 0), true
	case "gid":
		in.Groups = append(in.Groups, number(v, 0))
	case "inbound":
		in.Inbound = true
	case "compartment":
		in.CompartmentID = number(v, 0)
	case "flags":
		x, err := readValue(l, fwp.Uint32, v)
		if err != nil {
			return err
		}
		in.Flags = fwp.ConditionFlags(x.Uint)
	case "reason":
		in.ReauthorizeReason = fwp.ReauthorizeReason(number(v, 0))
	default:
		c, ok := fwpm.ParseCondition(k)
		if !ok {
			return l.errorf("field %q is unknown", k)
		}
		x, err := readValue(l, c.DataType(in.Layer), v)
		if err != nil {
			return err
		}
		if in.Other == nil {
			in.Other = map[fwpm.ConditionID]fwp.Value{}
		}
		in.Other[c] = x
	}
	return nil
}
