package policyrun

import (
	"context"
	"time"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/wsk"
)

// Options configure a Runner or a described policy. The zero value works. The
// functions may be called on many goroutines at a time, before Load returns, too: they
// must not call Load, Use, Drain or Close of the Runner, which may wait for them.
type Options struct {
	// Store keeps redirect records and is the caller's to close, after the Runner.
	// Optional: in memory.
	Store redirect.Store
	// SealKey makes redirect records and handles good after a restart with the same
	// key: whose redirect it was is known then, with the callout's bytes if the Store
	// outlives the process. Optional: those of this Runner are its own.
	SealKey *redirect.SealKey
	// Process is who the Dialer and the policy's proxies are to filters. Optional:
	// this process.
	Process wsk.Process
	// CacheDir is where compiled modules are kept; one that others can write to is not
	// used. Optional: they are compiled at each Load, which takes seconds.
	CacheDir string
	// CacheDirSize bounds CacheDir, in bytes: see guest.Options. Optional: 1 GiB.
	CacheDirSize int64
	// CompileApart compiles modules in processes of their own that the system limits: see
	// guest.Options, and what main does first for it. Who did not write the policy's
	// modules wants it.
	CompileApart bool
	// CacheSize is how many decisions a policy's engine keeps: see host.Options. A
	// policy that is described asks each time.
	CacheSize int
	// Drain is how long the connections of a proxy may take to end that the next
	// policy has no more. Optional: 30 s.
	Drain time.Duration

	// OnDecision hears of every classification, on its goroutine. It must not keep
	// or change what it is shown. Optional.
	OnDecision func(p *Policy, in *fwps.Incoming, d *fwps.Decision)
	// OnRedirect hears of every redirect that was applied, refused or failed.
	// Optional.
	OnRedirect func(ale.RedirectEvent)
	// OnCallout hears what happens to a callout as a whole, such as its
	// quarantine. The callout waits for it: it must not call the Runner or the callout,
	// and hands over to another goroutine what is to be done. Optional.
	OnCallout func(guest.Event)
	// OnInput hears of each file that a policy names, before it is read: a change
	// of one is a reason to Load again. Optional.
	OnInput func(path string)
	// Logf hears of what somebody may need to look into. Optional.
	Logf func(format string, args ...any)

	// Before is asked when a policy is whole and about to take effect. An error
	// refuses it. Optional.
	Before func(*Policy) error
	// Classifier returns what decides in the place of a policy's engine, such as a
	// recorder around it. Optional.
	Classifier func(*Policy) fwps.Classifier
	// Module returns a callout's module, and may change how it is loaded.
	// Optional: package function Module.
	Module func(ctx context.Context, dir string, c policyfile.Callout, o *guest.ModuleOptions) ([]byte, error)
	// Journals lets what callouts are told be written down (package journal).
	Journals bool
	triesOut bool // nothing is connected
}

func (o Options) filled() Options {
	if o.Drain == 0 {
		o.Drain = 30 * time.Second
	}
	if o.OnRedirect == nil {
		o.OnRedirect = func(ale.RedirectEvent) {}
	}
	if o.OnInput == nil {
		o.OnInput = func(string) {}
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Before == nil {
		o.Before = func(*Policy) error { return nil }
	}
	if o.Classifier == nil {
		o.Classifier = func(p *Policy) fwps.Classifier { return p.Engine }
	}
	if o.Module == nil {
		o.Module = func(ctx context.Context, dir string, c policyfile.Callout, _ *guest.ModuleOptions) ([]byte, error) {
			return Module(ctx, dir, c)
		}
	}
	return o
}
