package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
)

func newSim() *cobra.Command {
	var policy, to, from, app string
	var pid, uid uint32
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sim --policy FILE --to ADDR:PORT",
		Short: "Take one described connection through the engine and print why it goes where it goes",
		Long: `Sim asks every layer what it would do with the connection you describe and prints
each layer, filter, callout and reason. Nothing is connected. It works on every system.`,
		Example: "  calloutd sim --policy examples/quickstart/policy.yaml --to 198.51.100.7:80 --app /usr/bin/curl",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			remote, err := netip.ParseAddrPort(to)
			if err != nil {
				return fmt.Errorf("--to %q: expected an address and a port, such as 198.51.100.7:80 or [2001:db8::7]:80", to)
			}
			local := netip.AddrPortFrom(unspecified(remote.Addr()), 0)
			if from != "" {
				if local, err = netip.ParseAddrPort(from); err != nil {
					return fmt.Errorf("--from %q: expected an address and a port", from)
				}
			}
			t := &tracer{out: cmd.OutOrStdout(), json: asJSON}
			w, err := open(cmd.Context(), policy, worldOptions{onDecision: t.decision, onRedirect: t.redirect, logf: t.logf})
			if err != nil {
				return err
			}
			defer w.Close()
			in := fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: local, Remote: remote, AppID: app, ProcessID: pid, UserID: uid, UserKnown: true}
			f, err := w.ale.Connect(cmd.Context(), described(in))
			var b *ale.BlockedError
			if errors.As(err, &b) {
				t.blocked(b)
				return exitCode(1)
			}
			if err != nil {
				return err
			}
			f.Detach()
			t.emit(event{Event: "connect", To: f.Remote.String(), From: f.Original.String()}, fmt.Sprintf("connects to %s (asked for %s)", f.Remote, f.Original))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&policy, "policy", "", "policy file")
	f.StringVar(&to, "to", "", "destination address and port")
	f.StringVar(&from, "from", "", "local address and port (default: not bound)")
	f.StringVar(&app, "app", "/usr/bin/curl", "path of the program that connects")
	f.Uint32Var(&pid, "pid", uint32(os.Getpid()), "process that connects")
	f.Uint32Var(&uid, "uid", 0, "user of the process")
	f.BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	_ = cmd.MarkFlagRequired("policy") // fails only for a flag that does not exist
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// described is an endpoint that exists only in words.
type described fwps.Incoming

func (d described) Incoming() fwps.Incoming { return fwps.Incoming(d) }

func (d described) Connect(context.Context, netip.AddrPort) (netip.AddrPort, error) {
	return d.Local, nil
}
