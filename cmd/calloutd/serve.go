package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/filewatch"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/systemd"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf"
	"github.com/calloutd/calloutd/host/policyrun"
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
	policyFlag(cmd, &o.policy)
	f := cmd.Flags()
	f.StringVar(&o.cgroup, "cgroup", "", "enforce the policy on this cgroup (root)")
	f.StringVar(&o.pin, "pin", "", "with --cgroup: folder of a BPF file system where the kernel's part is kept")
	f.StringVar(&o.control, "control", socketPath("control.sock"), "the control socket")
	f.StringVar(&o.remote, "remote", socketPath("remote.sock"), "the socket for proxies that are other programs; empty: none")
	f.StringSliceVar(&o.users, "allow-user", nil, "users besides root and this one whose proxies may ask")
	f.BoolVar(&o.strict, "strict-queries", false, "answer only the process that a connection was redirected to (AMB-06)")
	f.BoolVar(&o.watch, "watch", true, "reload when the policy's files change")
	f.BoolVar(&o.trace, "trace", false, "log every layer, filter and callout that was asked")
	o.account.flags(cmd)
	f.StringVar(&o.format, "log-format", "text", "how lines are logged on standard error: text or json")
	completeFlag(cmd, "log-format", "text", "json")
	o.records.flags(f)
	f.DurationVar(&o.drain, "drain", 30*time.Second, "how long connections may take to end")
	// These fail only for a flag that does not exist.
	_ = cmd.MarkFlagDirname("cgroup")
	_ = cmd.MarkFlagDirname("pin")
	_ = cmd.MarkFlagFilename("records")
	return cmd
}

type serveOptions struct {
	policy, cgroup, pin     string
	control, remote, format string
	users                   []string
	strict, watch, trace    bool
	drain                   time.Duration
	records                 records
	account                 account
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
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	t := newTracer(io.Discard, false, o.trace)
	t.logger = log
	end, err := o.account.open(t, newTracer(out, o.format == "json", false))
	if err != nil {
		return err
	}
	defer end()
	store, closeStore, err := o.records.open(t)
	if err != nil {
		return err
	}
	defer closeStore()
	t.store = store
	passed, err := systemd.Listeners()
	if err != nil {
		return err
	}
	d := &daemon{o: o, t: t, log: log, state: "starting", started: time.Now(), failed: make(chan error, 1), files: hashes{}}
	d.ctx, d.cancel = context.WithCancel(ctx)
	if err := d.start(passed); err != nil {
		d.cancel()
		for _, l := range passed {
			l.Close()
		}
		return err
	}
	defer d.Close()
	return d.run(signals)
}

// start puts the first policy into force and begins everything else.
func (d *daemon) start(passed map[string]*net.UnixListener) (err error) {
	o := d.t.options()
	o.Drain, o.Before = d.o.drain, d.before
	o.OnInput = func(path string) { d.named = append(d.named, path) }
	d.runner = policyrun.New(o)
	d.files = d.files.of([]string{d.o.policy})
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := d.replace(); err != nil {
		return err
	}
	for _, begin := range []func(map[string]*net.UnixListener) error{d.startRemote, d.startCgroup, d.startControl, d.startWatch} {
		if err := begin(passed); err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) startRemote(passed map[string]*net.UnixListener) (err error) {
	l := passed["remote"]
	if l == nil && d.o.remote == "" {
		return nil
	}
	allow, err := d.o.allow()
	if err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if len(d.o.users) > 0 {
		mode = 0o666 // The service looks who it is.
	}
	if l, err = d.listen(l, "unixpacket", &d.o.remote, mode); err != nil {
		return err
	}
	delete(passed, "remote")
	d.remote, err = remote.New(remote.Options{ALE: d.runner.Enforcer(), Allow: allow, StrictQueries: d.o.strict, Logf: d.t.logf})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	d.serving("remote", func() error { return d.remote.Serve(l) })
	return nil
}

// listen listens unless the service manager does. The path is where it is.
func (d *daemon) listen(passed *net.UnixListener, network string, path *string, mode os.FileMode) (*net.UnixListener, error) {
	if passed != nil {
		*path = passed.Addr().String()
		return passed, nil
	}
	const elsewhere = "--control and --remote name other sockets"
	if err := os.MkdirAll(filepath.Dir(*path), 0o755); err != nil {
		return nil, fmt.Errorf("%w (%s)", err, elsewhere)
	}
	l, err := remote.Listen(network, *path, mode)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = fmt.Errorf("%s is in use: is there another daemon? (%s)", *path, elsewhere)
	case err != nil:
		err = fmt.Errorf("%w (%s)", err, elsewhere)
	}
	return l, err
}

func (d *daemon) startCgroup(map[string]*net.UnixListener) (err error) {
	if d.o.cgroup == "" {
		return nil
	}
	o := cgroupbpf.Options{Cgroup: d.o.cgroup, ALE: d.runner.Enforcer(), Policy: d.runner.Policy().Engine.Policy(), PinDir: d.o.pin, Logf: d.t.logf, OnBlocked: d.t.onBlocked, Handoff: d.runner.Handoff,
		AskPermitted: d.o.account.wanted()}
	if d.remote != nil {
		o.Records = d.remote.TakeRecords
	}
	d.cgroup, err = cgroupbpf.Attach(d.ctx, o)
	return err
}

func (d *daemon) startControl(passed map[string]*net.UnixListener) error {
	l, err := d.listen(passed["control"], "unix", &d.o.control, 0o600)
	if err != nil {
		return err
	}
	delete(passed, "control")
	d.serving("control", func() error { return control.Serve(d.ctx, l, d) })
	return nil
}

func (d *daemon) startWatch(map[string]*net.UnixListener) (err error) {
	if !d.o.watch {
		return nil
	}
	if d.watcher, err = filewatch.New(filewatch.Options{Logf: d.t.logf}); err != nil {
		return err
	}
	d.serving("watch", func() error { return d.watcher.Run(d.ctx) })
	d.watchInputs()
	return nil
}

// reloads puts policies into force whose files changed.
func (d *daemon) reloads() {
	for {
		d.changed() // The first time for what changed before it was watched.
		select {
		case <-d.watcher.Changed():
		case <-d.ctx.Done():
			return
		}
	}
}

// run says that the daemon is ready and does what it is told until its end.
func (d *daemon) run(signals <-chan os.Signal) error {
	d.move("starting", "ready")
	d.tell(systemd.Ready(d.summary()))
	d.log.Info("ready", "control", d.o.control, "remote", d.o.remote, "cgroup", d.o.cgroup)
	if d.watcher != nil {
		d.wg.Go(d.reloads)
	}
	watchdog, err := ticker(systemd.Watchdog())
	if err != nil {
		return err
	}
	defer watchdog.Stop()
	for {
		select {
		case s := <-signals:
			if s != syscall.SIGHUP {
				return d.end(signals)
			}
			d.wg.Go(func() { _ = d.change("SIGHUP") }) // It is told.
		case err := <-d.failed:
			return err
		case <-watchdog.C:
			d.tell(systemd.Alive())
		}
	}
}

// ticker ticks as often as is asked for, never for 0.
func ticker(every time.Duration, err error) (*time.Ticker, error) {
	if err != nil || every <= 0 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t, err
	}
	return time.NewTicker(every), nil
}

// end drains, until it has, the time is over, or another signal comes.
func (d *daemon) end(signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(d.ctx, d.o.drain)
	defer cancel()
	drained := make(chan struct{})
	go func() { defer close(drained); d.drain(ctx) }()
	for {
		select {
		case s := <-signals:
			if s != syscall.SIGHUP {
				cancel()
			}
		case <-drained:
			d.log.Info("ended", "in order", ctx.Err() == nil)
			return nil
		}
	}
}
