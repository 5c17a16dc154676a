// Package guest runs callouts that are WebAssembly modules.
//
// A guest is never trusted: it is metered (package meter), its memory is
// bounded, every answer is checked, and an instance that failed once is thrown
// away, because what it holds may be wrong.
package guest

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/tetratelabs/wazero"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// Limits and defaults.
const (
	// MaxModuleSize is the limit of a module, in bytes.
	MaxModuleSize      = 32 << 20
	defaultMemoryPages = 256
	maxWasmPages       = 65536
	// classifySlices is the fuel of one decision, a few milliseconds at worst;
	// initSlices is that of starting and configuring an instance.
	classifySlices = 256
	initSlices     = meter.InitialSlices
	idleEvery      = 1000
)

// Options configure a Runtime. The zero value works.
type Options struct {
	// CacheDir keeps compiled modules between runs. Optional.
	CacheDir string
	// MemoryLimitPages bounds the memory of one instance, in 64 KiB pages.
	// Optional: 256, which is 16 MiB.
	MemoryLimitPages uint32
}

// A Runtime compiles and holds modules.
type Runtime struct {
	rt    wazero.Runtime
	cache wazero.CompilationCache
	pages uint32
}

// NewRuntime returns a Runtime. The caller closes it after its modules.
func NewRuntime(ctx context.Context, o Options) (*Runtime, error) {
	if o.MemoryLimitPages == 0 {
		o.MemoryLimitPages = defaultMemoryPages
	}
	if o.MemoryLimitPages > maxWasmPages {
		return nil, fmt.Errorf("memory limit of %d pages is over %d", o.MemoryLimitPages, maxWasmPages)
	}
	// The capacity is the limit from the start: views of the memory never go stale.
	cfg := wazero.NewRuntimeConfig().WithMemoryLimitPages(o.MemoryLimitPages).WithMemoryCapacityFromMax(true)
	r := &Runtime{pages: o.MemoryLimitPages}
	if o.CacheDir != "" {
		c, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil { // A cache that cannot be used costs time only.
			c = wazero.NewCompilationCache()
		}
		r.cache, cfg = c, cfg.WithCompilationCache(c)
	}
	r.rt = wazero.NewRuntimeWithConfig(ctx, cfg)
	if err := instantiateWASI(ctx, r.rt); err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	return r, nil
}

// Close ends the runtime and every instance.
func (r *Runtime) Close(ctx context.Context) error {
	err := r.rt.Close(ctx)
	if r.cache != nil {
		err = errors.Join(err, r.cache.Close(ctx))
	}
	return err
}

// ModuleOptions configure a module. The zero value works.
type ModuleOptions struct {
	// Config is handed to callout_init.
	Config []byte
	// Slots is how many decisions run at once: one a processor if zero.
	Slots int
	// Spares is how many instances wait to replace one that fails: 1 if zero.
	Spares int
	// FuelSlices is the budget of one decision in slices of meter.SliceFuel:
	// 256 if zero. InitFuelSlices is that of each step of starting an instance.
	FuelSlices, InitFuelSlices int
	// Logf hears of what the guest prints and of instances that were replaced,
	// at a limited rate.
	Logf func(format string, args ...any)
	// unguarded leaves the guest as it is: what benchmarks compare with.
	unguarded bool
}

func (o *ModuleOptions) defaults() error {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&o.Slots, max(1, runtime.GOMAXPROCS(0)))
	set(&o.Spares, 1)
	set(&o.FuelSlices, classifySlices)
	set(&o.InitFuelSlices, initSlices)
	const most = 1 << 24 // far from overflow in the guest's arithmetic
	for _, n := range []int{o.Slots, o.Spares, o.FuelSlices, o.InitFuelSlices} {
		if n < 0 || n > most {
			return fmt.Errorf("module option %d is out of range", n)
		}
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return nil
}

// Load validates, meters and compiles a module and starts its instances.
func (r *Runtime) Load(ctx context.Context, name string, wasm []byte, o ModuleOptions) (_ *Module, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("callout module %q: %w", name, err)
		}
	}()
	if err := o.defaults(); err != nil {
		return nil, err
	}
	compiled, err := r.compile(ctx, wasm, o.unguarded)
	if err != nil {
		return nil, err
	}
	return newModule(ctx, r, name, compiled, o)
}

// compile turns a panic of the compiler into an error: the module is the
// input of somebody else.
func (r *Runtime) compile(ctx context.Context, wasm []byte, unguarded bool) (_ wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the compiler failed: %v", p)
		}
	}()
	if err := check(ctx, wasm, r.pages); err != nil {
		return nil, err
	}
	rewrite := meter.Rewrite
	if unguarded {
		rewrite = meter.Strip
	}
	metered, err := rewrite(wasm)
	if err != nil {
		return nil, err
	}
	return r.rt.CompileModule(ctx, metered)
}
