package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/filewatch"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/systemd"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/wsk/remote"
)

// start puts the first policy into force and begins everything else.
func (d *daemon) start(passed map[string]*net.UnixListener) (err error) {
	o := d.t.options()
	o.Drain, o.Before = d.o.drain, d.before
	o.OnInput = func(path string) { d.loading.add(path) }
	d.runner = policyrun.New(o)
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
	if l, err = listenUnless(l, "unixpacket", &d.o.remote, mode, others); err != nil {
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

const others = "--control and --remote name other sockets"

// listenUnless listens unless the service manager does. The path is where it is.
func listenUnless(passed *net.UnixListener, network string, path *string, mode os.FileMode, elsewhere string) (*net.UnixListener, error) {
	if passed != nil {
		*path = passed.Addr().String()
		return passed, nil
	}
	return listenAt(network, *path, mode, elsewhere)
}

// listenAt makes a socket, and the folder that it is in.
func listenAt(network, path string, mode os.FileMode, elsewhere string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("%w (%s)", err, elsewhere)
	}
	l, err := remote.Listen(network, path, mode)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = fmt.Errorf("%s is in use: is there another daemon? (%s)", path, elsewhere)
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
		MaxConnections: d.o.maxConnections,
		AskPermitted:   d.o.books.account.wanted()}
	if d.remote != nil {
		o.Records = d.remote.TakeRecords
	}
	d.cgroup, err = cgroupbpf.Attach(d.ctx, o)
	return err
}

func (d *daemon) startControl(passed map[string]*net.UnixListener) error {
	l, err := listenUnless(passed["control"], "unix", &d.o.control, 0o600, others)
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
