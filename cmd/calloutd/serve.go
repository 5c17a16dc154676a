package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/systemd"
	"github.com/calloutd/calloutd/wsk/remote"
)

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve --policy FILE",
		Short: "Keep a policy in force as a daemon, and answer proxies that are other programs (Linux)",
		Long: `Serve holds the engine, the policy's proxies and the service that proxies in other programs
ask whose connection they accepted (wsk/remote), until SIGTERM or SIGINT: then it lets
connections end, for --drain at most; a second signal ends them.

With --cgroup it enforces the policy on a cgroup, as attach does. --events and --summary tell
of all that is decided, as those of run do.

When the policy, a list or a module changes, or on SIGHUP, the new policy takes the place of
the old one in a single step. If anything is wrong with it, the old one stays in force.

A service manager is told when it is ready, reloads and ends, and may pass the sockets
"remote" (packets) and "control" (a stream). On the control socket calloutd status asks.`,
		Example: `  calloutd serve -p /etc/calloutd/policy.yaml --cgroup /sys/fs/cgroup/system.slice/web.service
  calloutd serve -p policy.yaml --control ./control.sock --remote ./remote.sock --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.serve(cmd.Context(), cmd.ErrOrStderr()) },
	}
	policyVar(cmd, &o.policy, "policy file, or folder with a policy.yaml (required)")
	_ = cmd.MarkFlagRequired("policy") // fails only for a flag that does not exist
	f := cmd.Flags()
	f.StringVar(&o.cgroup, "cgroup", "", "enforce the policy on this cgroup (root)")
	maxConnectionsFlag(cmd, &o.maxConnections, "user")
	f.StringVar(&o.pin, "pin", "", "with --cgroup: folder of a BPF file system where the kernel's part is kept")
	f.StringVar(&o.control, "control", socketPath("control.sock"), "the control socket")
	f.StringVar(&o.remote, "remote", socketPath("remote.sock"), "the socket for proxies that are other programs; empty: none")
	f.StringSliceVar(&o.users, "allow-user", nil, "users besides root and this one whose proxies may ask")
	f.BoolVar(&o.strict, "strict-queries", false, "answer only the process that a connection was redirected to (AMB-06)")
	f.BoolVar(&o.watch, "watch", true, "reload when the policy's files change")
	f.BoolVar(&o.trace, "trace", false, "log every layer, filter and callout that was asked")
	o.books.account.flags(cmd)
	f.StringVar(&o.format, "log-format", "text", "how lines are logged on standard error: text or json")
	completeFlag(cmd, "log-format", "text", "json")
	o.books.records.flags(f)
	f.DurationVar(&o.drain, "drain", 30*time.Second, "how long connections may take to end")
	// These fail only for a flag that does not exist.
	_ = cmd.MarkFlagDirname("cgroup")
	_ = cmd.MarkFlagDirname("pin")
	_ = cmd.MarkFlagFilename("records")
	return cmd
}

type serveOptions struct {
	maxConnections          int64
	policy, cgroup, pin     string
	control, remote, format string
	users                   []string
	strict, watch, trace    bool
	drain                   time.Duration
	books                   books
}

// socketPath is where a daemon's socket is unless it is told otherwise.
func socketPath(name string) string {
	switch dirs := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")); {
	case len(dirs) > 0:
		return filepath.Join(dirs[0], name)
	case os.Geteuid() == 0 || os.Getenv("XDG_RUNTIME_DIR") == "":
		return filepath.Join("/run/calloutd", name)
	}
	return filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "calloutd", name)
}

func (o *serveOptions) logger(out io.Writer) (*slog.Logger, error) {
	switch o.format {
	case "text":
		return slog.New(slog.NewTextHandler(out, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, nil)), nil
	}
	return nil, fmt.Errorf("--log-format %q is neither text nor json", o.format)
}

// allow tells whose proxies may ask.
func (o *serveOptions) allow() (func(remote.Peer) bool, error) {
	may := []uint32{0, uint32(os.Geteuid())}
	for _, name := range o.users {
		u, err := user.Lookup(name)
		if err != nil {
			if u, err = user.LookupId(name); err != nil {
				return nil, fmt.Errorf("--allow-user: there is no user %q", name)
			}
		}
		id, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("--allow-user %s: %w", name, err)
		}
		may = append(may, uint32(id))
	}
	return func(p remote.Peer) bool { return slices.Contains(may, p.UID) }, nil
}

func (o *serveOptions) serve(ctx context.Context, out io.Writer) (err error) {
	log, err := o.logger(out)
	switch {
	case err != nil:
		return err
	case o.pin != "" && o.cgroup == "":
		return errors.New("--pin needs --cgroup: it keeps the kernel's part, which decides for a cgroup")
	case o.control == o.remote:
		return fmt.Errorf("--control and --remote are both %s: expected a socket for each", o.control)
	}
	defer outliveReaders()()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	t := newTracer(io.Discard, false, o.trace)
	t.logger = log
	end, err := o.books.open(t, newTracer(out, o.format == "json", false))
	if err != nil {
		return err
	}
	defer end()
	passed, err := systemd.Listeners()
	if err != nil {
		return err
	}
	d := &daemon{o: o, t: t, log: log, state: "starting", started: time.Now(), failed: make(chan error, 1), files: hashes{}}
	d.ctx, d.cancel = context.WithCancel(ctx)
	err = untilEnded(d.ctx, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, d.cancel)()
		return d.start(passed)
	})
	if err != nil {
		d.cancel()
		if e, ok := errors.AsType[endedBy](err); ok {
			log.Info("ended before it was ready", "signal", e.Signal)
		}
		for _, l := range passed {
			l.Close()
		}
		return err
	}
	defer d.Close()
	return d.run(signals)
}
