package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce/dnsnames"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/wsk"
)

func newSim() *cobra.Command {
	var o description
	cmd := &cobra.Command{
		Use:   "sim DEST [--policy FILE]",
		Short: "Take one described connection through the engine and print why it goes where it goes",
		Long: `Sim asks every layer what it would do with the connection you describe and prints
each layer, filter, callout and reason, and what a forward proxy's own connection would
meet. Nothing is connected and no proxy is started: a proxy that would get a port from
the system has one from 61001 on. It works on every system.

With --with it stands beside policies of other providers, or models of them, and each
line says whose filter it is, how heavy its sublayer and it are, and what became of it.

It ends with code 1 when the connection is blocked, or goes round in a loop.`,
		Example: `  calloutd sim --policy examples/quickstart/policy.yaml --to 198.51.100.7:80 --app /usr/bin/curl
  calloutd sim -p policy.yaml --to 198.51.100.7:443 --peer-name app.example --verbose
  calloutd sim -p policy.yaml --inbound --from 203.0.113.9:40000 --to 192.0.2.1:22
  calloutd sim -p policy.yaml --to 198.51.100.7:80 --with second-redirector`,
		Args:              o.destination,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              tidily(func(cmd *cobra.Command, _ []string) error { return o.simulate(cmd) }),
	}
	policyHere(cmd, &o.policy)
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.StringVar(&o.peer, "peer-name", "", "the name that the connection asks for (SNI, Host), as a proxy of kind peek learns it: PEER_NAME of the proxy's own connection")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "also the filters that were not asked and why, weights, what callouts took, and what the proxy asks Winsock Kernel")
	f.BoolVar(&o.inbound, "inbound", false, "the program accepts the connection instead of making it")
	o.flags(cmd)
	return cmd
}

// A description is a connection in words.
type description struct {
	policy, to, from, app, protocol, host, peer string
	pid                                         uint32
	uid                                         int64
	luid                                        uint64
	json, inbound, verbose                      bool
	argument                                    bool // to is the argument DEST
	beside                                      beside
}

// flags adds what sim and why have in common.
func (o *description) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "where the connection goes, ADDR:PORT, if it is not the argument DEST")
	f.StringVar(&o.app, "app", "/usr/bin/curl", "path of the program")
	f.StringVar(&o.from, "from", "", "where it comes from, ADDR:PORT (default: a socket that is not bound)")
	f.Int64Var(&o.uid, "uid", int64(os.Getuid()), "number of the program's user; -1: not known (default: yours)")
	f.Lookup("uid").DefValue = "0" // Help and manual pages are the same for every user.
	f.Uint32Var(&o.pid, "pid", 1000, "number of the process")
	f.StringVar(&o.protocol, "protocol", "tcp", "tcp, udp or a number")
	f.StringVar(&o.host, "host-name", "", "what the destination is called, as a proxy of kind dns would have learned: PEER_NAME of the program's connection")
	f.Uint64Var(&o.luid, "interface", 0, "LUID of the interface that it uses (IP_LOCAL_INTERFACE; default: not known)")
	o.beside.flag(cmd)
	completeFlag(cmd, "protocol", "tcp", "udp")
}

// destination takes DEST, or --to in its place: who knows one of sim and why knows the other.
func (o *description) destination(cmd *cobra.Command, args []string) error {
	if cmd.Flags().Changed("to") {
		return cobra.NoArgs(cmd, args)
	}
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return err
	}
	o.to, o.argument = args[0], true
	return nil
}

func (o *description) simulate(cmd *cobra.Command) error {
	in, err := o.incoming()
	if err != nil {
		return err
	}
	t := newTracer(cmd.OutOrStdout(), o.json, true)
	if o.verbose {
		t.details = new(policytrace.Details)
	}
	return simulate(cmd.Context(), t, explore.Question{Policy: o.policy, In: in, HostName: o.host, PeerName: o.peer}, &o.beside, nil)
}

// simulate takes a connection through a policy and what is beside it. That it is
// blocked or goes round is the error exitCode; saw hears of the files that the policy
// names, nil: nobody does.
func simulate(ctx context.Context, t *tracer, q explore.Question, with *beside, saw func(path string)) error {
	d := policyrun.Description{Options: t.options(), Names: new(dnsnames.Names)}
	d.OnInput = saw
	q.HostName, q.PeerName = explore.Learned(q.HostName), explore.Learned(q.PeerName)
	if q.HostName != "" {
		d.Names.Learn(q.In.Client(), netip.AddrPort{}, q.HostName, []netip.Addr{q.In.Remote.Addr()}, time.Hour)
	}
	p, err := with.describe(ctx, q.Policy, d)
	if err != nil {
		return err
	}
	defer p.Close()
	enforcer := ale.New(ale.Options{Classifier: p.Engine, Store: memstore.New(0), OnRedirect: t.redirect, PeerNames: d.Names.Of})
	s := simulation{t.details.Watch(ctx), p, enforcer, t, q.PeerName, q.In.Other, map[string]bool{}}
	if q.In.Inbound {
		_, err = s.accept(q.In)
	} else {
		err = s.connect(q.In)
	}
	var b *ale.BlockedError
	if errors.As(err, &b) {
		t.blocked(b, q.In.Local)
		return exitCode(codeNo)
	}
	return err
}

// incoming is the connection of the flags.
func (o *description) incoming() (fwps.Incoming, error) {
	c := explore.Connection{Program: o.app, User: "unknown", PID: fmt.Sprint(o.pid), To: o.to, From: o.from, Protocol: o.protocol, HostName: o.host, PeerName: o.peer, Inbound: o.inbound}
	if o.uid >= 0 {
		c.User = fmt.Sprint(o.uid)
	}
	in, mistakes := c.Incoming()
	if o.luid != 0 {
		in.Other = policytest.OnInterface(nil, o.luid)
	}
	var errs []error
	if o.uid < -1 || o.uid > math.MaxUint32 {
		return in, fmt.Errorf("--uid %d: expected the number of a user, or -1: not known", o.uid)
	}
	for _, m := range mistakes {
		name := "--" + strings.ReplaceAll(m.Field, "_", "-")
		if m.Field == "to" && o.argument {
			name = "DEST"
		}
		errs = append(errs, fmt.Errorf("%s %q: %s", name, c.Field(m.Field), m.Message))
	}
	return in, errors.Join(errs...)
}

// A simulation takes connections through the layers that exist only in words.
type simulation struct {
	ctx context.Context
	*policyrun.Policy
	ale  *ale.Enforcer
	t    *tracer
	peer string // what a proxy of kind peek would learn
	// also is what is known of the connection and of the proxies' own ones: they go
	// to the same place.
	also map[fwpm.ConditionID]fwp.Value
	seen map[string]bool // proxies that it was at
}

// connect is a program's connect() or first datagram, and what follows from it.
func (s simulation) connect(in fwps.Incoming) error {
	_, f, err := policytest.Connect(s.ctx, s.ale, in)
	if err != nil {
		return err
	}
	f.Detach()
	if in.Protocol != fwps.ProtocolTCP {
		s.goes("sends", in.Remote, f.Remote)
		return nil
	}
	s.goes("connects", in.Remote, f.Remote)
	px, ok := s.ProxyAt(f.Remote)
	switch {
	case !ok || px.Kind.Foreign():
		return nil
	case s.seen[px.ID]:
		s.t.notice(policytrace.Event{Event: "loop", To: f.Remote.String(), Proxy: px.ID, Rule: "SC-31", Why: "the proxy gets its own connection again"},
			fmt.Sprintf("%s: proxy %s gets its own connection again, and so on without end (SC-31)", s.t.paint.word("loop"), px.ID))
		return exitCode(codeNo)
	}
	s.seen[px.ID] = true
	return s.proxied(px, f, in)
}

func (s simulation) goes(verb string, asked, to netip.AddrPort) {
	e := policytrace.Event{Event: "connect", To: to.String(), Proxy: s.ProxyID(to)}
	text := verb + " to " + s.t.read().To(to)
	if asked != to {
		e.Original = asked.String()
		text += ", asked for " + asked.String()
	}
	s.t.emit(e, text)
}

// proxied is the proxy's side of a redirected connection: it accepts, and one
// that forwards connects with the records set, unless it forgets them.
func (s simulation) proxied(px policyfile.Proxy, f *ale.Flow, in fwps.Incoming) error {
	in = fwps.Incoming{Protocol: in.Protocol, AppID: "calloutd", ProcessID: s.ProcessID, Local: f.Remote, Remote: f.Local}
	acc, err := s.accept(in)
	if err != nil {
		return err
	}
	s.asks(acc)
	if px.Kind == policyfile.ProxyInspect {
		return nil
	}
	own := fwps.Incoming{Protocol: in.Protocol, AppID: in.AppID, ProcessID: in.ProcessID, Remote: f.Original, Other: s.also}
	if !px.ForgetsRecords {
		if own.Records, err = policytest.Carry(s.ale, acc.Records); err != nil {
			return err
		}
		s.sets(own.Records, own.Remote)
	}
	if px.Kind == policyfile.ProxyPeek && s.peer != "" {
		own.Other = policytest.Called(s.also, s.peer)
	}
	return s.connect(own)
}

// asks is what a proxy wants to know of a connection that it accepted.
func (s simulation) asks(acc *ale.Flow) {
	if s.t.details == nil {
		return
	}
	for _, code := range []uint32{wsk.SIOQueryWFPConnectionRedirectRecords, wsk.SIOQueryWFPConnectionRedirectContext} {
		s.t.emit(s.t.read().Query(code, s.ale, acc))
	}
}

func (s simulation) sets(rs redirect.Records, to netip.AddrPort) {
	if s.t.details != nil {
		s.t.emit(s.t.read().Set(rs, to))
	}
}

func (s simulation) accept(in fwps.Incoming) (*ale.Flow, error) {
	f, err := s.ale.Accept(s.ctx, in)
	if err != nil {
		return nil, err
	}
	s.t.emit(policytrace.Event{Event: "accept", From: f.Remote.String(), To: f.Local.String(), Proxy: s.ProxyID(f.Local)},
		fmt.Sprintf("accepted at %s from %s", s.t.read().To(f.Local), f.Remote))
	return f, nil
}
