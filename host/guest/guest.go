// Package guest runs callouts that are WebAssembly modules.
//
// A guest is never trusted: it is metered (package meter), its memory is
// bounded, every answer is checked, and an instance that failed once is thrown
// away, because what it holds may be wrong.
package guest

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/sdk/abi"
)

const (
	// MaxModuleSize is the limit of a module, in bytes.
	MaxModuleSize      = 32 << 20
	defaultMemoryPages = 256
	maxWasmPages       = 65536
	compileTimeout     = 2 * time.Minute
)

// Options configure a Runtime. The zero value works.
type Options struct {
	// CacheDir keeps compiled modules between runs. Optional. Its machine code is
	// run, so one that CheckCacheDir refuses is not used.
	CacheDir string
	// MemoryLimitPages bounds the memory of one instance, in 64 KiB pages.
	// Optional: 256, which is 16 MiB.
	MemoryLimitPages uint32
	// CompileTimeout bounds the compilation of a module. Optional: 2 minutes.
	CompileTimeout time.Duration
}

// A Runtime compiles and holds modules. It is safe for concurrent use.
type Runtime struct {
	*compilers
	pages   uint32
	timeout time.Duration
	metered meteredCache
	clock   clock
}

// NewRuntime returns a Runtime. The caller closes it after its modules.
func NewRuntime(ctx context.Context, o Options) (*Runtime, error) {
	if o.MemoryLimitPages == 0 {
		o.MemoryLimitPages = defaultMemoryPages
	}
	if o.MemoryLimitPages > meter.MaxMemoryPages {
		return nil, fmt.Errorf("memory limit of %d pages is over %d", o.MemoryLimitPages, meter.MaxMemoryPages)
	}
	if o.CacheDir != "" && CheckCacheDir(o.CacheDir) != nil {
		o.CacheDir = ""
	}
	c, err := newCompilers(ctx, o.CacheDir, o.MemoryLimitPages)
	if err != nil {
		return nil, err
	}
	r := &Runtime{compilers: c, pages: o.MemoryLimitPages, timeout: cmp.Or(o.CompileTimeout, compileTimeout), metered: meteredCache{o.CacheDir}}
	r.clock.open()
	return r, nil
}

// Close ends the runtime and every instance.
func (r *Runtime) Close(ctx context.Context) error {
	r.clock.close()
	return r.compilers.close(ctx)
}

// Load validates, meters and compiles a module and starts its instances. When the context
// has ended meanwhile there is no module, and the error is the context's cause.
func (r *Runtime) Load(ctx context.Context, name string, wasm []byte, o ModuleOptions) (_ *Module, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("callout module %q: %w", name, err)
		}
	}()
	if err := o.defaults(); err != nil {
		return nil, err
	}
	return newModule(ctx, r, name, wasm, o)
}

// compile turns a panic of the compiler into an error: the module is the
// input of somebody else.
func (r *Runtime) compile(ctx context.Context, wasm []byte, f form) (_ *source, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = as(ErrInvalid, fmt.Errorf("the compiler failed: %v", p))
		}
	}()
	if err := checkSize(wasm); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, as(ErrCompileTime, fmt.Errorf("compiling took longer than %v", r.timeout)))
	defer cancel()
	// With workers the compiler looks at the context between functions.
	ctx = experimental.WithCompilationWorkers(ctx, max(2, runtime.GOMAXPROCS(0)))
	src, err := r.compileMetered(ctx, wasm, f)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, as(ErrInvalid, err)
	}
	for _, f := range src.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		src.needs |= hostModules[module][name].need
	}
	return src, nil
}

// A form is what is made of a module before it is compiled.
type form int

const (
	guarded form = iota
	unguarded
	covered
)

func (r *Runtime) compileMetered(ctx context.Context, wasm []byte, f form) (*source, error) {
	if metered := r.metered.get(r.pages, wasm); metered != nil && f == guarded {
		if src, err := r.compileModule(ctx, metered); err == nil {
			return src, nil
		} // What is in the cache is damaged.
	}
	if err := check(ctx, wasm, r.pages); err != nil {
		return nil, err
	}
	metered, blocks, err := rewrite(wasm, f)
	if err != nil {
		return nil, err
	}
	src, err := r.compileModule(ctx, metered)
	if err != nil {
		return nil, err
	}
	src.covered.blocks = blocks
	if f == guarded {
		r.metered.put(r.pages, wasm, metered)
	}
	return src, nil
}

func rewrite(wasm []byte, f form) (out []byte, blocks []meter.Block, err error) {
	switch f {
	case unguarded:
		out, err = meter.Unmetered(wasm)
	case covered:
		return meter.Cover(wasm, abi.ExportClassify)
	default:
		out, err = meter.Rewrite(wasm, abi.ExportClassify)
	}
	return out, nil, err
}
