package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/enforce/nftgateway"
)

type gatewayOptions struct {
	policy, name        string
	control             string
	interfaces          []string
	transparent, remove bool
	json, trace         bool
	maxConnections      int64
	books               books
}

func newGateway() *cobra.Command {
	var o gatewayOptions
	cmd := &cobra.Command{
		Use:   "gateway --policy FILE --interface NAME...",
		Short: "Enforce the policy on what others connect through this system (Linux, root)",
		Long: `Gateway enforces the policy on every TCP connection that comes in on the interfaces and goes
further, until it is interrupted: on a router, or for the containers behind a bridge. It makes
nftables tables of its own and removes them at the end. If it dies they stay, and connections
are refused until the next gateway of that name; --remove takes them away.

Only addresses and ports are known of a connection, no program and no user. A block is a
reset. With --transparent UDP is decided and carried, too: a block is an ICMP message. What is not
taken is refused. Connections to this system itself are left alone.

With --control it answers calloutd status and monitors on that socket, its owner and root:
what it carries and refuses, the figures of callouts and names, whether its rules are there.
With --events every decision is a line for machines, and with --summary the end is told.`,
		Example: `  calloutd gateway -p policy.yaml --interface docker0
  calloutd gateway -p policy.yaml --interface eth1 --interface eth2 --transparent
  calloutd gateway -p policy.yaml --interface docker0 --control /run/calloutd/gateway.sock
  calloutd gateway -p policy.yaml --interface docker0 --record day.flight`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.remove:
				return nftgateway.Remove(o.name)
			case len(o.interfaces) == 0:
				return errors.New("--interface must be given: the one that connections come in on, as ip link calls it")
			}
			return o.run(cmd)
		},
	}
	policyVar(cmd, &o.policy, "policy file, or folder with a policy.yaml (required)")
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.StringSliceVar(&o.interfaces, "interface", nil, "interface that connections come in on (required)")
	_ = cmd.RegisterFlagCompletionFunc("interface", completeInterfaces)
	f.BoolVar(&o.transparent, "transparent", false, "use TPROXY: no address is translated, and UDP is taken")
	f.StringVar(&o.name, "name", "", "tells gateways of one system apart")
	f.BoolVar(&o.remove, "remove", false, "take away what a gateway that died has left, and end")
	f.StringVar(&o.control, "control", "", "answer calloutd status on this socket")
	_ = cmd.MarkFlagFilename("control") // fails only for a flag that does not exist
	maxConnectionsFlag(cmd, &o.maxConnections, "host")
	o.books.tape.flags(cmd)
	f.BoolVar(&o.trace, "trace", false, "print every layer, filter and callout that was asked")
	o.books.account.flags(cmd)
	cmd.MarkFlagsOneRequired("policy", "remove")
	cmd.MarkFlagsMutuallyExclusive("policy", "remove")
	return cmd
}

func (o *gatewayOptions) run(cmd *cobra.Command) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer outliveReaders()()
	t := newTracer(cmd.ErrOrStderr(), o.json, o.trace)
	var asks *net.UnixListener
	if o.control != "" { // Before anything is changed: it may be another's.
		var err error
		if asks, err = listenAt("unix", o.control, 0o600, "--control names another socket"); err != nil {
			return err
		}
		defer asks.Close()
		o.books.inputs = hashes{}
	}
	r, end, err := o.books.putInForce(ctx, o.policy, t)
	if err != nil {
		return err
	}
	defer end()
	// Its connections end when it is closed, after the rules: not with the signal.
	g, err := nftgateway.Start(context.WithoutCancel(ctx), nftgateway.Options{Interfaces: o.interfaces, ALE: r.Enforcer(), Transparent: o.transparent,
		Name: o.name, MaxConnections: o.maxConnections, Handoff: r.Handoff, Logf: t.logf, OnBlocked: t.onBlocked})
	if err != nil {
		return err
	}
	if asks != nil {
		status := &reporter{runner: r, gateway: g, policy: policyInForce(o.policy, 1, o.books.inputs, r.Policy().File)}
		defer status.serve(ctx, asks, t.logf)()
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: gateway for %s; interrupt to end\n", strings.Join(o.interfaces, ", "))
	<-ctx.Done()
	defer func() { t.sum.lose(g.Datagrams().Lost) }()
	return g.Close()
}
