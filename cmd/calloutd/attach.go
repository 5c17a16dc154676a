package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/enforce/cgroupbpf"
)

func newAttach() *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach {--policy FILE | --detach} --cgroup DIR",
		Short: "Enforce the policy on every process of a cgroup (Linux, root)",
		Long: `Attach enforces the policy on every connection and datagram of a version 2 cgroup, until
it is interrupted. What address, port, protocol and user decide is decided in the kernel and
costs next to nothing; what a callout or the program's path decides is sent to calloutd,
which carries the connection. A block is EACCES in the first case and a reset in the second.
Datagrams that a callout decides are carried, too, and a block is an ICMP message; those that
only the program's path or the address that they leave by can decide are refused: run can
decide them. Programs in other network
namespaces, such as containers, are decided alike: what a callout redirects leaves from
calloutd's own, what it permits from the program's.

With --events every decision is a line for machines, with --summary the end is told, and
--record keeps a flight file; the kernel then tells what it permits, too, but for datagrams
that are sent without connect().

With --pin the kernel's part outlives calloutd: what needs an answer is refused until the
next attach, of this version or of another one. --detach takes it away, and needs no policy.`,
		Example: `  calloutd attach -p policy.yaml --cgroup /sys/fs/cgroup/system.slice/web.service
  calloutd attach -p policy.yaml --cgroup /sys/fs/cgroup/web --pin /sys/fs/bpf
  calloutd attach --detach --cgroup /sys/fs/cgroup/web --pin /sys/fs/bpf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.detach && o.pin == "":
				return errors.New("--detach takes away what is pinned, and --pin says where")
			case o.detach:
				return cgroupbpf.Detach(o.cgroup, o.pin)
			}
			return o.attach(cmd)
		},
	}
	policyVar(cmd, &o.policy, "policy file, or folder with a policy.yaml (required, but for --detach)")
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.StringVar(&o.cgroup, "cgroup", "", "folder of the cgroup (required)")
	f.StringVar(&o.pin, "pin", "", "folder of a BPF file system where the kernel's part is kept")
	f.BoolVar(&o.detach, "detach", false, "take away what is pinned and end")
	maxConnectionsFlag(cmd, &o.maxConnections, "user")
	f.BoolVar(&o.trace, "trace", false, "print every layer, filter and callout that was asked")
	o.books.account.flags(cmd)
	o.books.tape.flags(cmd)
	o.books.records.flags(f)
	cmd.MarkFlagsOneRequired("policy", "detach")
	// These fail only for a flag that does not exist.
	_ = cmd.MarkFlagRequired("cgroup")
	_ = cmd.MarkFlagDirname("cgroup")
	_ = cmd.MarkFlagDirname("pin")
	_ = cmd.MarkFlagFilename("records")
	return cmd
}

type attachOptions struct {
	policy, cgroup, pin string
	json, trace, detach bool
	maxConnections      int64
	books               books
}

func (o *attachOptions) attach(cmd *cobra.Command) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer outliveReaders()()
	t := newTracer(cmd.ErrOrStderr(), o.json, o.trace)
	r, end, err := o.books.putInForce(ctx, o.policy, t)
	if err != nil {
		return err
	}
	defer end()
	a, err := cgroupbpf.Attach(ctx, cgroupbpf.Options{Cgroup: o.cgroup, ALE: r.Enforcer(), Policy: r.Policy().Engine.Policy(), PinDir: o.pin, Logf: t.logf,
		OnBlocked: t.onBlocked, MaxConnections: o.maxConnections, Handoff: r.Handoff, AskPermitted: o.books.account.wanted() || o.books.tape.records()})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: attached to %s; interrupt to end\n", o.cgroup)
	<-ctx.Done()
	defer func() { t.sum.lose(a.Datagrams().Lost) }()
	return a.Close()
}
