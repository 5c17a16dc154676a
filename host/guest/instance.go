package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/sdk/abi"
)

// An instance is one copy of the guest with all a decision needs.
type instance struct {
	m        *Module
	mod      api.Module
	ctx      callContext
	classify api.Function
	idle     api.Function // nil: none
	notify   api.Function // nil: none
	budget   api.MutableGlobal
	block    *[abi.BlockSize]byte // the exchange block, a view of the guest's memory
	// stack is for classify: the budget, then the answer and what is left of the
	// budget.
	stack   [2]uint64
	slices  uint64 // of fuel that a decision has
	granted uint32 // capabilities
	store   *store
	trial   bool // it is only tried: nothing of it stays
	// generation is the number of that which it is of.
	generation uint64
	calls      int // decisions since the last housekeeping
	seen       int // calls when the housekeeper last looked
	// hostCalls is what is left of them, asked the call that is being decided.
	hostCalls int
	asked     *fwps.Call
	impure    bool             // that call asked the host for what is not pure
	journal   *journal.Journal // of the call that is being decided; nil: none is kept
	// told are the filters that the guest knows, as of a version of the module's.
	told        map[fwpm.FilterID]fwpm.LayerID
	toldVersion uint64
	texts       map[string]string
	names       []byte
	probes      probes
}

// start makes an instance of a generation that is ready to be asked; of none, 0, it is only tried.
func (m *Module) start(src *source, generation uint64) (*instance, error) {
	i, err := m.begin(src, generation)
	if err != nil {
		return nil, err
	}
	if err := i.prepare(src); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// begin makes an instance. The context of its calls never ends: a guest is
// bounded by fuel, and wazero's own guard does not stop a recursion.
func (m *Module) begin(src *source, generation uint64) (_ *instance, err error) {
	i := &instance{m: m, slices: uint64(m.opts.FuelSlices), hostCalls: hostCallBudget, trial: generation == 0, generation: generation, store: &m.store}
	if i.trial {
		i.store = new(store)
	}
	i.ctx = callContext{context.Background(), i}
	// Without a source of its own wazero makes one, which is large; no guest gets at it.
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(rand.Reader)
	if i.mod, err = src.rt.InstantiateModule(withMemory(&i.ctx), src.compiled, cfg); err != nil {
		return nil, startCause(err)
	}
	defer func() {
		if err != nil {
			i.close()
		}
	}()
	budget, found := i.mod.ExportedGlobal(meter.BudgetGlobal).(api.MutableGlobal)
	if !found && !m.opts.unguarded {
		return nil, errors.New("the metered module lost its budget")
	}
	i.budget = budget
	i.classify, i.idle = i.mod.ExportedFunction(meter.Entry(abi.ExportClassify)), i.mod.ExportedFunction(abi.ExportIdle)
	if m.opts.unguarded {
		i.classify = i.mod.ExportedFunction(abi.ExportClassify)
	}
	i.notify = i.mod.ExportedFunction(abi.ExportNotify)
	if _, err = i.call(abi.ExportInitialize); err != nil {
		return i, err
	}
	return i, m.probe(i, src)
}

// prepare agrees on capabilities and hands over the configuration.
func (i *instance) prepare(src *source) error {
	if err := i.negotiate(src.needs); err != nil {
		return err
	}
	if err := i.locate(); err != nil {
		return err
	}
	return i.configure(src.config)
}

// locate asks for the exchange block. The view stays good: the memory's
// capacity is its limit, so growing does not move it.
func (i *instance) locate() error {
	answer, err := i.call(abi.ExportMarker)
	if err != nil {
		return err
	}
	at := uint32(answer)
	if at == 0 || at%abi.BlockAlign != 0 {
		return fmt.Errorf("exchange block at %#x is not at a multiple of %d", at, abi.BlockAlign)
	}
	block, inside := i.mod.Memory().Read(at, abi.BlockSize)
	if !inside {
		return fmt.Errorf("exchange block at %#x is outside the memory", at)
	}
	i.block = (*[abi.BlockSize]byte)(block)
	return nil
}

// initHeader is the length of what callout_init finds in the response.
const initHeader = 12

func (i *instance) configure(config []byte) error {
	if i.mod.ExportedFunction(abi.ExportInit) == nil {
		if len(config) > 0 {
			return as(ErrConfig, &ConfigError{"the module takes no configuration (it has no " + abi.ExportInit + ")", ""})
		}
		return nil
	}
	for first := true; first || len(config) > 0; first = false {
		clear(i.block[:])
		r := i.block[abi.ResponseOffset:]
		le.PutUint32(r[abi.InitSize:], initHeader)
		le.PutUint16(r[abi.InitMinor:], abi.Minor)
		le.PutUint32(r[abi.InitGranted:], i.granted)
		n := copy(i.block[:abi.InitChunk], config)
		arg := uint64(n)
		if config = config[n:]; len(config) > 0 {
			arg |= abi.InitMore
		}
		answer, err := i.call(abi.ExportInit, arg)
		if err != nil {
			return err
		}
		if code := int32(answer); code != 0 {
			return as(ErrConfig, &ConfigError{i.refusal(code), abi.ExportInit + " refused the configuration: "})
		}
	}
	return nil
}

// refusal is why callout_init or callout_notify said no. A guest that wrote no
// response left the host's own header there, which has no reason.
func (i *instance) refusal(code int32) string { return reason(i.block[:], code) }

// call makes a call that is not a decision. What is not exported returns zero.
func (i *instance) call(name string, args ...uint64) (uint64, error) {
	f := i.mod.ExportedFunction(name)
	if f == nil {
		return 0, nil
	}
	i.refill(i.m.opts.InitFuelSlices)
	res, err := f.Call(&i.ctx, args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, i.cause(err))
	}
	if len(res) == 0 {
		return 0, nil
	}
	return res[0], nil
}

func (i *instance) refill(slices int) {
	if i.budget != nil {
		i.budget.Set(uint64(slices))
	}
	i.hostCalls = hostCallBudget
}

// ask runs one decision and returns how many slices it started. The request has
// been written.
func (i *instance) ask(c *fwps.Call, v *fwps.Verdict) (slices uint64, err error) {
	i.stack = [2]uint64{i.slices, i.slices}
	i.hostCalls, i.asked, i.impure = hostCallBudget, c, false
	err = i.classify.CallWithStack(&i.ctx, i.stack[:])
	i.asked = nil
	if err != nil {
		return 0, i.cause(err)
	}
	return i.slices - uint64(int64(int32(i.stack[1]))), i.decode(i.stack[0], c, v)
}

func (i *instance) close() {
	if i.probes.of != nil {
		i.probes.of.gather(i)
	}
	_ = i.mod.Close(context.Background())
}
