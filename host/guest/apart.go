package guest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/internal/apart"
)

// maxProcs is how many processors a process has to compile with.
const maxProcs = 8

// CompileChild is the first thing that the main function of a program does that sets
// Options.CompileApart: it returns at once, but in a process that a Runtime started, where
// it compiles a module and does not return. A TestMain is such a main function, too.
func CompileChild() { apart.Serve(compileJob) }

// A job is a module to compile, or to look into, whose bytes follow it.
type job struct {
	CacheDir string
	Pages    uint32
	Form     form
	Inspect  bool
}

// A result is what became of a job.
type result struct {
	Summary    *meter.Summary
	Objections []objection
	Unkept     string // why what was compiled is not in the cache, empty if it is
}

// An objection is an error on its way between two processes.
type objection struct {
	Text  string
	Kinds []int // of kinds
}

// kinds are what compile says of a module, in the order that both processes know.
var kinds = []error{ErrInvalid, ErrTooLarge, ErrCompileTime, ErrABI}

// compileJob leaves a module in the cache, and returns why not.
func compileJob(in []byte) []byte {
	// What a module takes does not grow with the machine.
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxProcs))
	var j job
	var r result
	head, wasm, _ := bytes.Cut(in, []byte("\n"))
	err := json.Unmarshal(head, &j)
	switch {
	case err != nil:
	case j.Inspect:
		r.Summary, err = meter.Inspect(wasm)
		err = ofMeter(err, "")
	default:
		r.Unkept, err = j.compile(context.Background(), wasm)
	}
	r.Objections = objections(err)
	out, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return out
}

func (j *job) compile(ctx context.Context, wasm []byte) (unkept string, err error) {
	logf := func(_ string, args ...any) { unkept = fmt.Sprint(args...) } // Who started this hears of damage itself.
	// The time is the other process's to keep.
	rt, err := newRuntime(ctx, Options{CacheDir: j.CacheDir, MemoryLimitPages: j.Pages, CompileTimeout: 24 * time.Hour, Logf: logf})
	if err != nil {
		return "", err
	}
	_, err = rt.compile(ctx, wasm, j.Form)
	return unkept, err // The runtime goes with the process.
}

// objections takes apart what errors.Join has put together.
func objections(err error) (out []objection) {
	if err == nil {
		return nil
	}
	if _, one := err.(*unfit); !one {
		if all, many := err.(interface{ Unwrap() []error }); many {
			for _, err := range all.Unwrap() {
				out = append(out, objections(err)...)
			}
			return out
		}
	}
	o := objection{Text: err.Error()}
	for k, kind := range kinds {
		if errors.Is(err, kind) {
			o.Kinds = append(o.Kinds, k)
		}
	}
	return []objection{o}
}

func (o objection) error() error {
	err := errors.New(o.Text)
	for _, k := range o.Kinds {
		if k >= 0 && k < len(kinds) {
			err = &unfit{err, kinds[k]}
		}
	}
	return err
}

// compileApart compiles in another process.
type compileApart struct {
	dir    string
	done   func() error // nil: dir stays
	why    error        // there is no dir
	memory uint64
}

// newApart is nil where o does not want it. Without a folder for what is compiled there is one
// while the runtime is there.
func newApart(o *Options) (*compileApart, error) {
	if !o.CompileApart {
		return nil, nil
	}
	if !apart.Served() {
		return nil, errors.New("Options.CompileApart: main does not begin with guest.CompileChild()")
	}
	a := &compileApart{memory: cmp.Or(o.CompileMemory, compileMemory)}
	if o.CacheDir == "" {
		o.CacheDir, a.done, a.why = workIn(os.TempDir(), "calloutd-compiled-")
	}
	a.dir = o.CacheDir
	return a, nil
}

func (a *compileApart) close() error {
	if a == nil || a.done == nil {
		return nil
	}
	return a.done()
}

// compile has a module compiled into the cache, or says why it is not there. It has to be possible,
// or is refused.
func (a *compileApart) compile(ctx context.Context, pages uint32, wasm []byte, f form) (unkept string, err error) {
	r, err := a.run(ctx, job{CacheDir: a.dir, Pages: pages, Form: f}, wasm)
	if a.why != nil {
		r.Unkept = a.why.Error()
	}
	return cmp.Or(r.Unkept, "something took it away"), err
}

// inspect has it looked into.
func (a *compileApart) inspect(ctx context.Context, wasm []byte) (*meter.Summary, error) {
	r, err := a.run(ctx, job{Inspect: true}, wasm)
	if err == nil && r.Summary == nil {
		err = as(ErrInvalid, errors.New("the compiler failed: it has no answer"))
	}
	return r.Summary, err
}

// errNoProcess is no fault of the module.
var errNoProcess = errors.New("no process to compile in")

func (a *compileApart) run(ctx context.Context, j job, wasm []byte) (r result, err error) {
	head, err := json.Marshal(j)
	if err != nil {
		return r, err
	}
	limits := apart.Limits{Memory: a.memory}
	if end, bounded := ctx.Deadline(); bounded { // On all its processors.
		limits.CPU = time.Until(end)*maxProcs + time.Second
	}
	answer, err := apart.Run(ctx, limits, slices.Concat(head, []byte("\n"), wasm))
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, ErrCompileTime) {
		return r, cause
	}
	if failed, ok := errors.AsType[*apart.Error](err); ok && !errors.Is(err, apart.ErrKilled) {
		return r, a.refused(failed)
	}
	if err != nil {
		return r, fmt.Errorf("%w: %w", errNoProcess, err)
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, as(ErrInvalid, fmt.Errorf("the compiler failed: its answer: %w", err))
	}
	var errs []error
	for _, o := range r.Objections {
		errs = append(errs, o.error())
	}
	return r, errors.Join(errs...)
}

// refused says which limit a module did not keep, how far it came, and what helps.
func (a *compileApart) refused(e *apart.Error) error {
	const remedy = "; the compiler takes most for long functions with many branches and locals: build with optimization, or split them"
	had := fmt.Sprintf(" (it had the processor for %v", e.CPU.Round(time.Millisecond))
	if e.Memory > 0 {
		had += fmt.Sprintf(" and %d MiB of memory", e.Memory>>20)
	}
	had += ")"
	switch {
	case errors.Is(e, ErrCompileTime):
		return as(ErrCompileTime, fmt.Errorf("%w%s%s", e.Why, had, remedy))
	case errors.Is(e, apart.ErrCPU):
		return as(ErrCompileTime, fmt.Errorf("compiling took too much of the processor%s%s", had, remedy))
	case errors.Is(e, apart.ErrMemory):
		return as(ErrTooLarge, fmt.Errorf("compiling took more memory than %d MiB%s%s", a.memory>>20, had, remedy))
	}
	return as(ErrInvalid, fmt.Errorf("the compiler failed%s: %w", had, e.Why))
}
