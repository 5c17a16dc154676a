package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

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
		"open":     (*world).open, "by": (*world).by, "next": (*world).next, "destroy": (*world).destroy, "statistics": (*world).statistics, "many": (*world).many, "boot-complete": (*world).bootComplete,
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

func number(s string, otherwise uint32) uint32 {
	if n, err := strconv.ParseUint(s, 0, 32); err == nil {
		return uint32(n)
	}
	return otherwise
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
