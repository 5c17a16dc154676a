// Package guest runs callouts that are WebAssembly modules.
//
// A guest is never trusted: it is metered (package meter), its memory is
// bounded, every answer is checked, and an instance that failed once is thrown
// away, because what it holds may be wrong.
package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/experimental"

	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/internal/oneline"
	"github.com/calloutd/calloutd/host/internal/race"
	"github.com/calloutd/calloutd/sdk/abi"
)

const (
	// MaxModuleSize is the limit of a module, in bytes.
	MaxModuleSize      = 32 << 20
	defaultMemoryPages = 256
	maxWasmPages       = 65536
	compileTimeout     = 2 * time.Minute
	compileMemory      = 2 << 30
)

// Options configure a Runtime. The zero value works.
type Options struct {
	// CacheDir keeps compiled modules between runs. Optional. Its machine code is
	// run, so one that CheckCacheDir refuses is not used, and none by a program of which
	// nothing says what version of wazero it has.
	CacheDir string
	// CacheDirSize bounds CacheDir, in bytes: whoever compiles something takes away what was
	// used least lately, but nothing that was used in the last ten minutes. What nobody used
	// for 30 days goes in any case. Files that are not the cache's stay. Optional: 1 GiB;
	// nothing goes if it is negative.
	CacheDirSize int64
	// Logf hears once why CacheDir is not used, that a file there was damaged, or that one
	// cannot be taken away. Optional.
	Logf func(format string, args ...any)
	// MemoryLimitPages bounds the memory of one instance, in 64 KiB pages.
	// Optional: 256, which is 16 MiB.
	MemoryLimitPages uint32
	// CompileTimeout bounds the compilation of a module. Optional: 2 minutes, and ten times
	// that in a program with the race detector.
	CompileTimeout time.Duration
	// CompileApart validates, meters and compiles what is not in CacheDir in a process of
	// its own, this program again, whose time and memory the system bounds: in this one a
	// module can take both as it likes. The program calls CompileChild first in main.
	CompileApart bool
	// CompileMemory bounds the memory of that process, in bytes, where the system is
	// Linux. Optional: 2 GiB.
	CompileMemory uint64
}

// A Runtime compiles and holds modules. It is safe for concurrent use.
type Runtime struct {
	*compilers
	pages   uint32
	timeout time.Duration
	apart   *compileApart // nil: all is compiled here
	clock   clock

	loading sync.RWMutex // Close waits for what is being loaded
	closed  bool
	mu      sync.Mutex
	modules map[*Module]struct{} // that are not closed
}

// NewRuntime returns a Runtime. The caller closes it.
func NewRuntime(ctx context.Context, o Options) (*Runtime, error) {
	if o.MemoryLimitPages == 0 {
		o.MemoryLimitPages = defaultMemoryPages
	}
	if o.MemoryLimitPages > meter.MaxMemoryPages {
		return nil, fmt.Errorf("memory limit of %d pages is over %d", o.MemoryLimitPages, meter.MaxMemoryPages)
	}
	if o.CacheDir != "" {
		dir, err := makeCacheDir(o.CacheDir)
		if err != nil && o.Logf != nil {
			o.Logf(sayUnkept, err)
		}
		o.CacheDir = dir
	}
	o.CacheDirSize = cmp.Or(o.CacheDirSize, cacheDirSize)
	if o.CacheDir == "" { // What is used in its place goes with the runtime.
		o.CacheDirSize = 0
	}
	return newRuntime(ctx, o)
}

// makeCacheDir makes a folder for what this version of wazero compiles. Somebody else may be the
// first to make it, in a folder such as /tmp.
func makeCacheDir(dir string) (string, error) {
	if err := CheckCacheDir(dir); err != nil {
		return "", err
	}
	version := cacheVersion()
	if version == "" {
		return "", errors.New("nothing says which version of wazero this program has")
	}
	versioned := filepath.Join(dir, version)
	if err := errors.Join(os.MkdirAll(versioned, 0o700), CheckCacheDir(versioned)); err != nil {
		return "", err
	}
	return versioned, nil
}

// newRuntime is NewRuntime with a cache that is for this version of wazero alone.
func newRuntime(ctx context.Context, o Options) (*Runtime, error) {
	apart, err := newApart(&o)
	if err != nil {
		return nil, err
	}
	c, err := newCompilers(ctx, o)
	if err != nil {
		return nil, errors.Join(err, apart.close())
	}
	r := &Runtime{compilers: c, pages: o.MemoryLimitPages, timeout: cmp.Or(o.CompileTimeout, compileTime()), apart: apart, modules: map[*Module]struct{}{}}
	r.clock.open()
	return r, nil
}

// Close ends the runtime. It closes the modules that are not closed yet, whose memory would
// go under what they decide, and waits for what is being loaded.
func (r *Runtime) Close(ctx context.Context) error {
	r.loading.Lock()
	r.closed = true
	r.loading.Unlock()
	r.mu.Lock()
	left := r.modules
	r.modules = nil
	r.mu.Unlock()
	for m := range left {
		_ = m.Close(ctx) // It has no errors.
	}
	r.clock.close()
	return errors.Join(r.compilers.close(ctx), r.apart.close())
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
	r.loading.RLock()
	defer r.loading.RUnlock()
	if r.closed {
		return nil, errRuntimeClosed
	}
	m, err := newModule(ctx, r, name, wasm, o)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.modules[m] = struct{}{}
	return m, nil
}

var errRuntimeClosed = errors.New("the runtime is closed")

func (r *Runtime) forget(m *Module) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.modules, m)
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
	ctx, cancel := r.limited(ctx)
	defer cancel()
	// With workers the compiler looks at the context between functions.
	ctx = experimental.WithCompilationWorkers(ctx, max(2, runtime.GOMAXPROCS(0)))
	src, err := r.compileMetered(ctx, wasm, f)
	switch {
	case errors.Is(err, ErrCompileTime), errors.Is(err, errNoProcess):
		return nil, err
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, as(ErrInvalid, err)
	}
	for _, f := range src.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		src.needs |= hostModules[module][name].need
	}
	_, src.hears = src.compiled.ExportedFunctions()[abi.ExportNotify]
	return src, nil
}

// compileTime is how long compiling may take at most where no option says so. The race detector
// makes the compiler slow.
func compileTime() time.Duration {
	if race.Enabled {
		return 10 * compileTimeout
	}
	return compileTimeout
}

// limited is ctx for as long as compiling may take.
func (r *Runtime) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, r.timeout, as(ErrCompileTime, fmt.Errorf("compiling took longer than %v", r.timeout)))
}

// A form is what is made of a module before it is compiled.
type form int

const (
	guarded form = iota
	unguarded
	covered
)

func (r *Runtime) compileMetered(ctx context.Context, wasm []byte, f form) (*source, error) {
	key := r.kept.key(r.pages, f, wasm)
	if src := r.find(ctx, key, wasm, f); src != nil {
		return src, nil
	}
	if r.apart != nil {
		unkept, err := r.apart.compile(ctx, r.pages, wasm, f)
		if err != nil {
			return nil, err
		}
		if src := r.find(ctx, key, wasm, f); src != nil {
			r.kept.trim()
			return src, nil
		}
		// It is within the limits: what it took there it takes here.
		r.kept.unkept(errors.New(oneline.Clean(unkept)))
	}
	if err := check(ctx, wasm, r.pages); err != nil {
		return nil, err
	}
	metered, blocks, err := rewrite(wasm, f)
	if err != nil {
		return nil, err
	}
	src, err := r.compileModule(ctx, key, metered)
	if err != nil {
		return nil, err
	}
	src.covered.blocks = blocks
	return src, nil
}

// find is what is in the cache of a module, nil if that is not all. Nothing is compiled.
func (r *Runtime) find(ctx context.Context, key string, wasm []byte, f form) *source {
	metered := r.kept.get(key)
	if metered == nil {
		return nil
	}
	src, err := r.findModule(ctx, metered)
	if err != nil {
		return nil
	}
	if f == covered {
		if _, src.covered.blocks, err = rewrite(wasm, f); err != nil {
			src.close()
			return nil
		}
	}
	return src
}

func rewrite(wasm []byte, f form) (out []byte, blocks []meter.Block, err error) {
	switch f {
	case unguarded:
		out, err = meter.Unmetered(wasm)
	case covered:
		out, blocks, err = meter.Cover(wasm, abi.ExportClassify)
	default:
		out, err = meter.Rewrite(wasm, abi.ExportClassify)
	}
	return out, blocks, ofMeter(err, "")
}
