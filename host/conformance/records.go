package conformance

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

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
	s, err := w.flow(a)
	if err != nil {
		return err
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
	s, err := w.flow(a)
	if err != nil {
		return err
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
	var in *ale.Flow
	for range number(n, 0) {
		var closes func()
		if in, closes, err = w.pass(proxy, to, in); err != nil {
			break
		}
		defer closes()
	}
	w.mu.Lock()
	w.trace.Reset()
	w.trace.WriteString(before)
	w.mu.Unlock()
	if err != nil {
		w.result(err, "")
		return nil
	}
	w.printf("= %d hops", len(in.Records))
	return nil
}

// pass connects to an address with the records of a connection that the proxy
// accepted, and accepts that at the proxy.
func (w *world) pass(proxy *sock, to netip.AddrPort, of *ale.Flow) (in *ale.Flow, closes func(), err error) {
	var records redirect.Records
	if of != nil {
		sealed, err := w.ale.Seal(of.Records)
		if err != nil {
			return nil, nil, err
		}
		if records, err = w.ale.Open(sealed); err != nil {
			return nil, nil, err
		}
	}
	s := w.ale.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("0.0.0.0:0"), AppID: "/bin/" + proxy.name, Records: records})
	out, err := s.Connect(context.Background(), to, w.connectTo(s))
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	at, err := w.net.accept(proxy.s.LocalAddr())
	if err == nil {
		in, err = proxy.s.Accept(context.Background(), at.to, at.from)
	}
	if err != nil {
		out.Close()
		s.Close()
		return nil, nil, err
	}
	return in, func() { in.Close(); out.Close(); s.Close() }, nil
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

// live prints how many hops the store holds.
func (w *world) live(*args) error {
	w.printf("= %d hops", w.ale.LiveHops())
	return nil
}
