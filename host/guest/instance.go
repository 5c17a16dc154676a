package guest

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/sdk/abi"
)

var errFuel = errors.New("the fuel budget is spent (endless loop or recursion?)")

// An instance is one copy of the guest with all a decision needs.
type instance struct {
	m         *Module
	mod       api.Module
	ctx       callContext
	classify  api.Function
	idle      api.Function // nil: none
	budget    api.MutableGlobal
	block     []byte // the exchange block, a view of the guest's memory
	stack     [1]uint64
	calls     int
	hostCalls int
	texts     map[string]string
}

// start makes an instance. The context of its calls never ends: a guest is
// bounded by fuel, and wazero's own guard does not stop a recursion.
func (m *Module) start() (_ *instance, err error) {
	i := &instance{m: m, hostCalls: hostCallBudget}
	i.ctx = callContext{context.Background(), i}
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	if i.mod, err = m.rt.rt.InstantiateModule(&i.ctx, m.compiled, cfg); err != nil {
		return nil, err
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
	i.classify, i.idle = i.mod.ExportedFunction(abi.ExportClassify), i.mod.ExportedFunction(abi.ExportIdle)
	if _, err := i.call(abi.ExportInitialize); err != nil {
		return nil, err
	}
	if err := i.locate(); err != nil {
		return nil, err
	}
	return i, i.configure(m.opts.Config)
}

// locate asks for the exchange block. The view stays good: the memory's
// capacity is its limit, so growing does not move it.
func (i *instance) locate() error {
	at, err := i.call(abi.ExportMarker)
	if err != nil {
		return err
	}
	if at == 0 || at%abi.BlockAlign != 0 {
		return fmt.Errorf("exchange block at %#x is not at a multiple of %d", at, abi.BlockAlign)
	}
	var inside bool
	if i.block, inside = i.mod.Memory().Read(at, abi.BlockSize); !inside {
		return fmt.Errorf("exchange block at %#x is outside the memory", at)
	}
	return nil
}

func (i *instance) configure(config []byte) error {
	if i.mod.ExportedFunction(abi.ExportInit) == nil {
		if len(config) > 0 {
			return fmt.Errorf("the module takes no configuration (it has no %s)", abi.ExportInit)
		}
		return nil
	}
	for first := true; first || len(config) > 0; first = false {
		clear(i.block)
		n := copy(i.block[:abi.InitChunk], config)
		arg := uint64(n)
		if config = config[n:]; len(config) > 0 {
			arg |= abi.InitMore
		}
		code, err := i.call(abi.ExportInit, arg)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("%s refused the configuration: %s", abi.ExportInit, reason(i.block, int32(code)))
		}
	}
	return nil
}

// call makes a call that is not a decision. What is not exported returns zero.
func (i *instance) call(name string, args ...uint64) (uint32, error) {
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
	return uint32(res[0]), nil
}

func (i *instance) refill(slices int) {
	if i.budget != nil {
		i.budget.Set(uint64(slices))
	}
	i.hostCalls = hostCallBudget
}

// cause tells a spent budget from other traps: both are unreachable.
func (i *instance) cause(err error) error {
	if i.budget != nil && int32(i.budget.Get()) < 0 {
		return errFuel
	}
	return err
}

// ask runs one decision. The request has been written.
func (i *instance) ask(c *fwps.Call, v *fwps.Verdict) error {
	i.refill(i.m.opts.FuelSlices)
	if err := i.classify.CallWithStack(&i.ctx, i.stack[:]); err != nil {
		return i.cause(err)
	}
	return i.decode(i.stack[0], c, v)
}

func (i *instance) close() { _ = i.mod.Close(context.Background()) }
