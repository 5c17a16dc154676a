// Package guest runs callouts that are WebAssembly modules.
package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/sdk/abi"
)

// Limits.
const (
	MaxModuleSize = 32 << 20
	// classifySlices is the fuel of one decision, about a millisecond at worst;
	// initSlices is that of starting and configuring an instance.
	classifySlices = 64
	initSlices     = 64 << 10
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
	wasi  map[string]bool
}

// NewRuntime returns a Runtime. The caller closes it after its modules.
func NewRuntime(ctx context.Context, o Options) (*Runtime, error) {
	if o.MemoryLimitPages == 0 {
		o.MemoryLimitPages = 256
	}
	// The capacity is the limit from the start: views of the memory never go stale.
	cfg := wazero.NewRuntimeConfig().WithMemoryLimitPages(o.MemoryLimitPages).WithMemoryCapacityFromMax(true)
	r := &Runtime{wasi: map[string]bool{}}
	if o.CacheDir != "" {
		c, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil { // A cache that cannot be used costs time only.
			c = wazero.NewCompilationCache()
		}
		r.cache, cfg = c, cfg.WithCompilationCache(c)
	}
	r.rt = wazero.NewRuntimeWithConfig(ctx, cfg)
	// No capability comes with it: no files, arguments, environment or sockets
	// are configured, so that a language's runtime starts and finds nothing.
	_, err := wasi_snapshot_preview1.Instantiate(ctx, r.rt)
	if err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	b, err := wasi_snapshot_preview1.NewBuilder(r.rt).Compile(ctx)
	if err != nil {
		return nil, errors.Join(err, r.Close(ctx))
	}
	for name := range b.ExportedFunctions() {
		r.wasi[name] = true
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

// ModuleOptions configure a module.
type ModuleOptions struct {
	// Config is handed to callout_init. Optional.
	Config []byte
	// Slots is how many decisions run at once. Optional: one a processor.
	Slots int
	// Logf hears of what the guest prints and of instances that were replaced. Optional.
	Logf func(format string, args ...any)
}

// A Module is a callout. It is a fwps.Callout.
type Module struct {
	name     string
	rt       *Runtime
	compiled wazero.CompiledModule
	opts     ModuleOptions
	slots    []slot
	next     atomic.Uint32
	spares   chan *instance
	wg       sync.WaitGroup
	closed   atomic.Bool
	traps    atomic.Uint64
}

type slot struct {
	mu   sync.Mutex
	inst *instance // nil: lost and not replaced yet
	_    [64]byte
}

// A TrapError is a guest that failed; its instance is gone.
type TrapError struct {
	Module string
	Err    error
}

func (e *TrapError) Error() string {
	msg := e.Err.Error()
	if i := strings.Index(msg, "\nwasm stack trace"); i >= 0 {
		msg = msg[:i]
	}
	return fmt.Sprintf("callout %q failed: %s", e.Module, msg)
}

func (e *TrapError) Unwrap() error { return e.Err }

// Load validates, meters and compiles a module and starts its instances. The
// original is validated before it is rewritten.
func (r *Runtime) Load(ctx context.Context, name string, wasm []byte, o ModuleOptions) (*Module, error) {
	if len(wasm) > MaxModuleSize {
		return nil, fmt.Errorf("module is %d bytes, the limit is %d", len(wasm), MaxModuleSize)
	}
	if len(wasm) >= 8 && string(wasm[:4]) == "\x00asm" && wasm[6] == 1 {
		return nil, errors.New("this is a WebAssembly component; build a core module")
	}
	// The original is compiled without the compiler's cost: parse and validate
	// happen in CompileModule of an interpreter.
	check := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(65536))
	orig, err := check.CompileModule(ctx, wasm)
	if err == nil {
		err = r.contract(orig)
	}
	check.Close(ctx)
	if err != nil {
		return nil, err
	}
	metered, err := meter.Rewrite(wasm)
	if err != nil {
		return nil, err
	}
	compiled, err := r.rt.CompileModule(ctx, metered)
	if err != nil {
		return nil, err
	}
	if o.Slots <= 0 {
		o.Slots = runtime.GOMAXPROCS(0)
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	m := &Module{name: name, rt: r, compiled: compiled, opts: o, slots: make([]slot, o.Slots), spares: make(chan *instance, 1)}
	for i := range m.slots {
		inst, err := m.start(ctx)
		if err != nil {
			return nil, fmt.Errorf("start: %w", err)
		}
		m.slots[i].inst = inst
	}
	m.respawn()
	return m, nil
}

// contract checks what the module imports and exports.
func (r *Runtime) contract(c wazero.CompiledModule) error {
	var unknown []string
	for _, f := range c.ImportedFunctions() {
		mod, name, _ := f.Import()
		if mod != wasi_snapshot_preview1.ModuleName || !r.wasi[name] {
			unknown = append(unknown, mod+"."+name)
		}
	}
	for _, mem := range c.ImportedMemories() {
		mod, name, _ := mem.Import()
		unknown = append(unknown, mod+"."+name+" (memory)")
	}
	slices.Sort(unknown)
	if len(unknown) > 0 {
		return fmt.Errorf("module imports what this host does not offer: %s", strings.Join(unknown, ", "))
	}
	ex := c.ExportedFunctions()
	if ex["_start"] != nil {
		return errors.New("module is a command (it exports _start); build a reactor, in Go with -buildmode=c-shared")
	}
	want := map[string]struct {
		required bool
		params   []api.ValueType
		results  []api.ValueType
	}{
		abi.ExportMarker:     {true, nil, []api.ValueType{api.ValueTypeI32}},
		abi.ExportClassify:   {true, nil, []api.ValueType{api.ValueTypeI64}},
		abi.ExportInit:       {false, []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
		abi.ExportIdle:       {false, []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
		abi.ExportInitialize: {false, nil, nil},
	}
	for name, w := range want {
		f := ex[name]
		if f == nil && w.required {
			return fmt.Errorf("module does not export %s: it is no callout of ABI v1", name)
		}
		if f != nil && (!slices.Equal(f.ParamTypes(), w.params) || !slices.Equal(f.ResultTypes(), w.results)) {
			return fmt.Errorf("export %s does not have the type the ABI asks for", name)
		}
	}
	if c.ExportedMemories()[abi.ExportMemory] == nil {
		return errors.New("module does not export its memory")
	}
	return nil
}

// An instance is one copy of the guest with all a decision needs.
type instance struct {
	mod      api.Module
	classify api.Function
	idle     api.Function
	budget   api.MutableGlobal
	block    []byte // the exchange block, a view of the guest's memory
	stack    [1]uint64
	calls    int
}

func (m *Module) start(ctx context.Context) (_ *instance, err error) {
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader).
		WithSysWalltime().WithSysNanotime().WithStdout(logWriter{m}).WithStderr(logWriter{m})
	mod, err := m.rt.rt.InstantiateModule(ctx, m.compiled, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			mod.Close(ctx)
		}
	}()
	budget, ok := mod.ExportedGlobal(meter.BudgetGlobal).(api.MutableGlobal)
	if !ok {
		return nil, errors.New("no budget")
	}
	i := &instance{mod: mod, budget: budget, classify: mod.ExportedFunction(abi.ExportClassify), idle: mod.ExportedFunction(abi.ExportIdle)}
	budget.Set(initSlices)
	if f := mod.ExportedFunction(abi.ExportInitialize); f != nil {
		if _, err := f.Call(ctx); err != nil {
			return nil, fmt.Errorf("_initialize: %w", err)
		}
	}
	res, err := mod.ExportedFunction(abi.ExportMarker).Call(ctx)
	if err != nil {
		return nil, err
	}
	at := uint32(res[0])
	if at%abi.BlockAlign != 0 {
		return nil, fmt.Errorf("exchange block at %#x is not %d-byte aligned", at, abi.BlockAlign)
	}
	if i.block, ok = mod.Memory().Read(at, abi.BlockSize); !ok {
		return nil, fmt.Errorf("exchange block at %#x is outside the memory", at)
	}
	return i, m.configure(ctx, i)
}

func (m *Module) configure(ctx context.Context, i *instance) error {
	f := i.mod.ExportedFunction(abi.ExportInit)
	if f == nil {
		if len(m.opts.Config) > 0 {
			return errors.New("the module takes no configuration (it has no callout_init)")
		}
		return nil
	}
	for rest, first := m.opts.Config, true; first || len(rest) > 0; first = false {
		n := copy(i.block[:abi.InitChunk], rest)
		rest = rest[n:]
		arg := uint64(n)
		if len(rest) > 0 {
			arg |= abi.InitMore
		}
		i.budget.Set(initSlices)
		res, err := f.Call(ctx, arg)
		if err != nil {
			return fmt.Errorf("callout_init: %w", err)
		}
		if code := int32(res[0]); code != 0 {
			return fmt.Errorf("callout_init refused the configuration: %s", reason(i.block, code))
		}
	}
	return nil
}

// Classify asks the guest. It waits for no lock while another slot is free.
func (m *Module) Classify(ctx context.Context, c *fwps.Call, v *fwps.Verdict) error {
	start := m.next.Add(1)
	n := uint32(len(m.slots))
	s := &m.slots[start%n]
	locked := false
	for k := range n {
		if t := &m.slots[(start+k)%n]; t.mu.TryLock() {
			s, locked = t, true
			break
		}
	}
	if !locked {
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.inst == nil {
		if s.inst = m.spare(); s.inst == nil {
			return &TrapError{m.name, errors.New("no instance is ready: the last one failed and is being replaced")}
		}
	}
	err := s.inst.ask(c, v)
	if err != nil {
		m.replace(s, err)
		v.Reset()
		return &TrapError{m.name, err}
	}
	if s.inst.calls++; s.inst.calls%idleEvery == 0 && s.inst.idle != nil && !m.closed.Load() {
		m.wg.Go(func() { m.housekeep(s) })
	}
	return nil
}

func (i *instance) ask(c *fwps.Call, v *fwps.Verdict) error {
	if err := encode(i.block, c); err != nil {
		return err
	}
	i.budget.Set(classifySlices)
	if err := i.classify.CallWithStack(context.Background(), i.stack[:]); err != nil {
		if int32(i.budget.Get()) < 0 {
			return errors.New("the fuel budget is spent (endless loop?)")
		}
		return err
	}
	return decode(i.block, i.stack[0], c, v)
}

// replace throws a failed instance away: its state cannot be trusted.
func (m *Module) replace(s *slot, err error) {
	m.traps.Add(1)
	m.opts.Logf("callout %q: instance replaced: %v", m.name, (&TrapError{m.name, err}).Error())
	s.inst.mod.Close(context.Background())
	s.inst = m.spare()
}

func (m *Module) spare() *instance {
	select {
	case i := <-m.spares:
		m.respawn()
		return i
	default:
		m.respawn()
		return nil
	}
}

// respawn fills the list of spares in the background.
func (m *Module) respawn() {
	if m.closed.Load() {
		return
	}
	m.wg.Go(func() {
		i, err := m.start(context.Background())
		if err != nil {
			m.opts.Logf("callout %q: no spare instance: %v", m.name, err)
			return
		}
		select {
		case m.spares <- i:
		default:
			i.mod.Close(context.Background())
		}
	})
}

// housekeep lets the guest collect garbage, off the path of decisions.
func (m *Module) housekeep(s *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inst == nil {
		return
	}
	s.inst.budget.Set(initSlices)
	if _, err := s.inst.idle.Call(context.Background(), 0); err != nil {
		m.replace(s, fmt.Errorf("callout_idle: %w", err))
	}
}

// Replaced is how many instances failed and were thrown away.
func (m *Module) Replaced() uint64 { return m.traps.Load() }

// Close ends the module. No Classify may be running.
func (m *Module) Close(ctx context.Context) error {
	m.closed.Store(true)
	m.wg.Wait()
	return m.compiled.Close(ctx)
}

type logWriter struct{ m *Module }

var _ io.Writer = logWriter{}

func (w logWriter) Write(b []byte) (int, error) {
	w.m.opts.Logf("callout %q: %s", w.m.name, strings.TrimSpace(string(b)))
	return len(b), nil
}

var started = time.Now()
