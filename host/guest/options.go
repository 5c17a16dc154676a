package guest

import (
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/guest/meter"
)

const (
	// classifySlices is the fuel of one decision, a few milliseconds at worst;
	// initSlices is that of starting and configuring an instance.
	classifySlices = 256
	initSlices     = meter.InitialSlices
	// idleEvery is after how many decisions a guest gets time for housekeeping.
	// One that was asked nothing for idleAfter gets it too.
	idleEvery = 1000
	idleAfter = time.Second
)

// Failure is what a callout answers when its guest fails.
type Failure int

// The failure modes.
const (
	// FailBlock answers with an error, which the engine makes a hard block.
	FailBlock Failure = iota
	// FailContinue leaves the decision to the other filters.
	FailContinue
)

// ModuleOptions configure a module. The zero value works.
type ModuleOptions struct {
	// Config is handed to callout_init.
	Config []byte
	// OnFailure is the answer in place of a guest that failed. Optional: FailBlock.
	OnFailure Failure
	// MaxFailures is how many failures in ten seconds put the callout in
	// quarantine: 5 if zero, never if negative. From the sixth on whoever meets a
	// failure waits until it is a twentieth of a second after the one before, at
	// most a quarter of a second.
	MaxFailures int
	// Withhold are capabilities (abi.Cap*) that the guest does not get although
	// this host has them. Optional.
	Withhold uint32
	// Sets and Tables are what cidr_match and table_lookup ask, by number.
	Sets   [][]netip.Prefix
	Tables [][]Row
	// Names appends to buf the names that were seen to resolve to an address, for whom the
	// connection is of, each with a zero byte after it. It is called on the path of a decision and
	// must not wait. Without it no guest has the capability.
	Names func(in *fwps.Incoming, addr netip.Addr, buf []byte) []byte
	// Slots is how many decisions run at once: one a processor if zero.
	Slots int
	// Spares is how many instances wait to replace one that fails: 1 if zero.
	Spares int
	// FuelSlices is the budget of one decision in slices of meter.SliceFuel:
	// 256 if zero. InitFuelSlices is that of each step of starting an instance.
	FuelSlices, InitFuelSlices int
	// Cover notes which blocks of the guest run, for Module.Coverage. Counters are
	// arrays that the guest counts in besides.
	Cover    bool
	Counters []Counter
	// Journals makes decisions look for a journal.Journal in their context.
	Journals bool
	// TriesOut says that no decision counts: there is time to make sure that an answer
	// which the guest calls cacheable is.
	TriesOut bool
	// Logf hears of what the guest prints and of instances that were replaced, at a limited
	// rate. All of it can be printed on one line: U+FFFD stands for what cannot.
	Logf func(format string, args ...any)
	// OnEvent hears of what changes the callout as a whole. It is called on a
	// goroutine of the module and must not call back into it.
	OnEvent func(Event)
	// unguarded leaves the guest as it is: what benchmarks compare with.
	unguarded bool
	unpaced   bool          // failures follow each other at once: for benchmarks of them
	idleAfter time.Duration // a second, but for tests
}

// A Row of a table: the value of a prefix, not negative.
type Row struct {
	Prefix netip.Prefix
	Value  int32
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
	set(&o.MaxFailures, breakerFailures)
	o.MaxFailures = max(0, o.MaxFailures)
	if o.idleAfter == 0 {
		o.idleAfter = idleAfter
	}
	const most = 1 << 24 // far from overflow in the guest's arithmetic
	for _, option := range []struct {
		name string
		n    int
	}{{"Slots", o.Slots}, {"Spares", o.Spares}, {"FuelSlices", o.FuelSlices}, {"InitFuelSlices", o.InitFuelSlices}, {"MaxFailures", o.MaxFailures}} {
		if option.n < 0 || option.n > most {
			return fmt.Errorf("module option %s is %d: expected 0 to %d", option.name, option.n, most)
		}
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	return nil
}

func (o *ModuleOptions) form() form {
	switch {
	case o.unguarded:
		return unguarded
	case o.Cover:
		return covered
	}
	return guarded
}
