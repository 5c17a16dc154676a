package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/control"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/filewatch"
	"github.com/calloutd/calloutd/cmd/calloutd/internal/systemd"
	"github.com/calloutd/calloutd/host/enforce/cgroupbpf"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/wsk/remote"
)

// A daemon has a policy in force until it is told to end, and puts another one in
// its place when the files change.
type daemon struct {
	o       *serveOptions
	log     *slog.Logger
	t       *tracer
	runner  *policyrun.Runner
	ctx     context.Context // of the policies and the proxies
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	remote  *remote.Service
	cgroup  *cgroupbpf.Attachment
	watcher *filewatch.Watcher
	failed  chan error // a part ended that should not

	changing sync.Mutex // one change of policies at a time
	files    hashes     // what was tried last, and what is in force
	loading  hashes     // of the policy that is being loaded

	mu      sync.Mutex
	state   string
	started time.Time
	policy  control.Policy
	reload  control.Reload
}

// replace puts the policy of the file into force. When anything is wrong with it,
// everything stays as it is.
func (d *daemon) replace() error {
	before := hashesOf(maps.Keys(d.files))
	d.loading = hashes{}
	d.loading.add(d.o.policy)
	if err := d.runner.Load(d.ctx, d.o.policy); err != nil {
		maps.Copy(before, d.loading)
		d.files = before
		return err
	}
	d.files = d.loading
	d.inForce(d.runner.Policy().File)
	return nil
}

// before lets the kernel's part take a policy first: it can refuse.
func (d *daemon) before(p *policyrun.Policy) error {
	if d.cgroup != nil {
		if err := d.cgroup.Update(p.Engine.Policy()); err != nil {
			return err
		}
	}
	d.t.policy.Store(p)
	return nil
}

// inForce notes what is in force now.
func (d *daemon) inForce(file *policyfile.File) {
	d.mu.Lock()
	d.policy = policyInForce(d.o.policy, d.policy.Generation+1, d.files, file)
	p := d.policy
	d.mu.Unlock()
	d.log.Info("policy in force", "file", p.File, "generation", p.Generation, "digest", p.Digest, "filters", p.Filters, "callouts", len(file.Callouts))
}

// change is replace as an event: with a reason, and told to everybody.
func (d *daemon) change(why string) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	if !d.move("ready", "reloading") {
		return errors.New("the daemon is " + d.Status().State)
	}
	d.tell(systemd.Reloading())
	d.log.Info("reload", "why", why)
	err := d.replace()
	d.mu.Lock()
	d.reload.Attempts++
	d.reload.Error, d.reload.ErrorAt = "", nil
	if err != nil {
		now := time.Now()
		d.reload.Failures++
		d.reload.Error, d.reload.ErrorAt = strings.Join(mistakes(err), "\n"), &now
	}
	generation := d.policy.Generation
	d.mu.Unlock()
	for _, m := range mistakes(err) {
		d.log.Error("policy not taken, the last good one stays in force", "mistake", m, "generation", generation)
	}
	d.watchInputs()
	d.move("reloading", "ready")
	d.tell(systemd.Ready(d.summary()))
	return err
}

// changed reloads if the files are not those that were tried last.
func (d *daemon) changed() {
	d.changing.Lock()
	same := maps.Equal(d.files, hashesOf(maps.Keys(d.files)))
	d.changing.Unlock()
	if !same {
		_ = d.change("a file changed") // It has been told.
	}
}

func (d *daemon) watchInputs() {
	if d.watcher != nil {
		d.watcher.Watch(d.ctx, slices.Collect(maps.Keys(d.files)))
	}
}

// move changes the state, if it is the one that it is to be changed from.
func (d *daemon) move(from, to string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	ok := d.state == from
	if ok {
		d.state = to
	}
	return ok
}

// tell logs that the service manager could not be told.
func (d *daemon) tell(err error) {
	if err != nil {
		d.log.Warn("the service manager was not told", "why", err)
	}
}

func (d *daemon) summary() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := fmt.Sprintf("policy %d of %s, %s", d.policy.Generation, d.policy.File, counted(d.policy.Filters, "filter"))
	if d.reload.Error != "" {
		s += "; the newest is not taken: " + d.reload.Error
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

// Health is nil while decisions can be made and nothing has ended.
func (d *daemon) Health() error {
	select {
	case err := <-d.failed:
		d.failed <- err
		return err
	default:
		return nil
	}
}

// Reload implements control.Daemon.
func (d *daemon) Reload(context.Context) error { return d.change("asked for") }

// Status implements control.Daemon.
func (d *daemon) Status() control.Status {
	d.mu.Lock()
	state, policy, reload := d.state, d.policy, d.reload
	d.mu.Unlock()
	s := statusOf(d.runner, state, d.started, policy)
	s.Cgroup, s.Reload = d.o.cgroup, reload
	s.Reload.Retired = d.runner.Retired()
	if d.cgroup != nil {
		connections, datagrams := d.cgroup.Connections(), d.cgroup.Datagrams()
		s.Connections, s.Datagrams = &connections, &datagrams
	}
	if d.remote != nil {
		s.Remote = &control.Remote{Address: d.o.remote, Stats: d.remote.Stats()}
	}
	return s
}

// drain stops taking connections and lets those that there are end, until ctx ends.
func (d *daemon) drain(ctx context.Context) {
	d.changing.Lock() // No policy comes any more.
	defer d.changing.Unlock()
	d.mu.Lock()
	d.state = "draining"
	d.mu.Unlock()
	d.tell(systemd.Stopping())
	d.log.Info("draining", "at most", d.o.drain.String())
	var wg sync.WaitGroup
	if d.cgroup != nil {
		wg.Go(func() {
			if err := d.cgroup.Drain(ctx); err != nil {
				d.log.Warn("cgroup", "why", err)
			}
		})
	}
	wg.Go(func() { d.runner.Drain(ctx) })
	wg.Wait()
}

// Close ends everything.
func (d *daemon) Close() {
	d.cancel()
	if d.cgroup != nil {
		if err := d.cgroup.Close(); err != nil {
			d.log.Warn("cgroup", "why", err)
		}
		d.t.sum.lose(d.cgroup.Datagrams().Lost)
	}
	if d.remote != nil {
		d.remote.Close()
	}
	d.wg.Wait()
	d.runner.Close()
}

// serving runs a part of the daemon; its end is a failure unless the daemon ends.
func (d *daemon) serving(what string, serve func() error) {
	d.wg.Go(func() {
		err := serve()
		if d.ctx.Err() != nil {
			return
		}
		select {
		case d.failed <- fmt.Errorf("%s ended: %w", what, err):
		default: // One failure is enough.
		}
	})
}
