package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// compilers make machine code. wazero fails with its cache: on a full disk, where it
// may not write, with a damaged file. That is to cost time only, so there is a second
// one then, without a cache.
type compilers struct {
	cached wazero.Runtime
	cache  wazero.CompilationCache // nil: cached has none
	dir    string
	config wazero.RuntimeConfig

	mu    sync.Mutex
	plain wazero.Runtime // nil until it is needed
}

func newCompilers(ctx context.Context, dir string, pages uint32) (_ *compilers, err error) {
	// The capacity is the limit from the start: views of the memory never go stale.
	c := &compilers{dir: dir, config: wazero.NewRuntimeConfig().WithMemoryLimitPages(pages).WithMemoryCapacityFromMax(true)}
	config := c.config
	if dir != "" {
		if cache, err := wazero.NewCompilationCacheWithDir(dir); err == nil {
			c.cache, config = cache, config.WithCompilationCache(cache)
		}
	}
	if c.cached, err = newHost(ctx, config); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	return c, nil
}

// newHost is a runtime with what modules import.
func newHost(ctx context.Context, config wazero.RuntimeConfig) (wazero.Runtime, error) {
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	if err := instantiateHost(ctx, rt); err != nil {
		return nil, errors.Join(err, rt.Close(ctx))
	}
	return rt, nil
}

func (c *compilers) close(ctx context.Context) error {
	var errs []error
	for _, rt := range []wazero.Runtime{c.cached, c.plain} {
		if rt != nil {
			errs = append(errs, rt.Close(ctx))
		}
	}
	if c.cache != nil {
		errs = append(errs, c.cache.Close(ctx))
	}
	return errors.Join(errs...)
}

func (c *compilers) compileModule(ctx context.Context, wasm []byte) (*source, error) {
	compiled, err := c.cached.CompileModule(ctx, wasm)
	switch {
	case err == nil:
		return &source{rt: c.cached, compiled: compiled, covered: new(coverage)}, nil
	case c.cache == nil || ctx.Err() != nil:
		return nil, err
	}
	if strings.HasPrefix(err.Error(), "compilationcache: ") {
		c.drop()
	}
	rt, err := c.without(ctx)
	if err != nil {
		return nil, err
	}
	if compiled, err = rt.CompileModule(ctx, wasm); err != nil {
		return nil, err
	}
	return &source{rt: rt, compiled: compiled, covered: new(coverage)}, nil
}

// findModule is compileModule for what is in the cache. The compiler looks there before it
// looks whether anybody still wants the module, and with workers does so before each function.
func (c *compilers) findModule(ctx context.Context, wasm []byte) (*source, error) {
	ctx, cancel := context.WithCancel(experimental.WithCompilationWorkers(ctx, 2))
	cancel()
	compiled, err := c.cached.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	return &source{rt: c.cached, compiled: compiled, covered: new(coverage)}, nil
}

func (c *compilers) without(ctx context.Context) (_ wazero.Runtime, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plain == nil {
		c.plain, err = newHost(ctx, c.config)
	}
	return c.plain, err
}

// drop takes away what wazero keeps, of which something is damaged: which file, only
// wazero knows.
func (c *compilers) drop() {
	files, _ := filepath.Glob(filepath.Join(c.dir, "wazero-*", "*")) // A folder that is a bad pattern keeps them.
	for _, f := range files {
		_ = os.Remove(f) // It may be gone, or not ours.
	}
}
