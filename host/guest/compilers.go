package guest

import (
	"context"
	"errors"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
)

// compilers make machine code. One compiles nothing where there is a cache, and takes what is
// kept from there. What cannot be kept, on a full disk or where nobody may write, has a second
// one, without a cache.
type compilers struct {
	cached wazero.Runtime
	loaded wazero.CompilationCache // nil: cached has none
	kept   cache
	config wazero.RuntimeConfig

	mu    sync.Mutex
	plain wazero.Runtime // nil until it is needed
}

func newCompilers(ctx context.Context, o Options) (_ *compilers, err error) {
	// The capacity is the limit from the start: views of the memory never go stale.
	c := &compilers{kept: cache{most: o.CacheDirSize, logf: o.Logf}, config: wazero.NewRuntimeConfig().WithMemoryLimitPages(o.MemoryLimitPages).WithMemoryCapacityFromMax(true)}
	config := c.config
	if o.CacheDir != "" {
		if c.loaded, err = c.kept.open(o.CacheDir); err != nil {
			c.kept.unkept(err)
		} else {
			config = config.WithCompilationCache(c.loaded)
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
	if c.loaded != nil {
		errs = append(errs, c.loaded.Close(ctx))
	}
	return errors.Join(errs...)
}

// compileModule compiles what get does not have for the key.
func (c *compilers) compileModule(ctx context.Context, key string, metered []byte) (*source, error) {
	rt := c.cached
	var unkept error
	if c.loaded != nil {
		if unkept = c.kept.put(ctx, c.config, key, metered); unkept == nil {
			if src, err := c.findModule(ctx, metered); err == nil {
				return src, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var err error
		if rt, err = c.without(ctx); err != nil {
			return nil, err
		}
	}
	compiled, err := rt.CompileModule(ctx, metered)
	if err != nil {
		return nil, err
	}
	if unkept != nil { // It is not the module's fault.
		c.kept.unkept(unkept)
	}
	return &source{rt: rt, compiled: compiled, covered: new(coverage)}, nil
}

// findModule loads what get has looked at. Nothing is compiled: the compiler looks there before it
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
