package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytest"
	"github.com/calloutd/calloutd/host/policytrace"
)

func newWhy() *cobra.Command {
	var o description
	cmd := &cobra.Command{
		Use:   "why DEST [--policy FILE]",
		Short: "Say in words why a connection is decided so, and what would have to change",
		Long: `Why takes the connection you describe through the engine and says what happens, which
filter at which layer decided because of which conditions, and what its callout said.
Then it tries what would decide otherwise: the policy without that filter, and the
filters that come nearest to matching. Nothing is connected. It is about one connection:
sim follows it through proxies, and knows what one of kind peek learns (--peer-name).

With --with it stands beside policies of other providers, or models of them, and why says
who stands where: whose filter in which sublayer decided, and what became of the others.`,
		Example: `  calloutd why 192.0.2.7:25 --app /usr/bin/mail -p examples/conditions/policy.yaml
  calloutd why 198.51.100.7:443 -p policy.yaml --with vpn-kill-switch --with windows-firewall`,
		Args:              o.destination,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              tidily(func(cmd *cobra.Command, _ []string) error { return o.why(cmd) }),
	}
	policyHere(cmd, &o.policy)
	jsonFlag(cmd, &o.json)
	o.flags(cmd)
	cmd.Flags().BoolVar(&o.inbound, "inbound", false, "the program accepts the connection at DEST instead of making it")
	return cmd
}

func (o *description) why(cmd *cobra.Command) error {
	in, err := o.incoming()
	if err != nil {
		return err
	}
	if o.host != "" {
		in.Other = policytest.Called(in.Other, explore.Learned(o.host))
	}
	p, err := o.beside.describe(cmd.Context(), o.policy, policyrun.Description{Options: newTracer(io.Discard, false, false).options()})
	if err != nil {
		return err
	}
	defer p.Close()
	e, err := policytrace.World(p).Explain(cmd.Context(), in, p.Engine.Update)
	if err != nil {
		return err
	}
	if o.json {
		return encode(cmd.OutOrStdout(), e)
	}
	who := fmt.Sprintf("%s to %s (%s)", policytrace.Program(o.app, o.pid), o.to, o.protocol)
	if o.inbound {
		who = fmt.Sprintf("%s at %s from %s (%s)", policytrace.Program(o.app, o.pid), o.to, o.from, o.protocol)
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), e.Text(who))
	return err
}
