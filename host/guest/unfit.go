package guest

import (
	"errors"
	"fmt"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// Why a module did not become a callout. What Load, Reload and Inspect say of a module
// wraps one of them, or several where more is wrong at once; what they say of the
// options, and the cause of a context that ended, wraps none.
var (
	// ErrInvalid is no WebAssembly, or uses what this host does not run.
	ErrInvalid = errors.New("not a valid module")
	// ErrTooLarge is over MaxModuleSize, starts with more memory than an instance may have,
	// has more of something than meter takes, or takes more than Options.CompileMemory to compile.
	ErrTooLarge = errors.New("module is too large")
	// ErrCompileTime was not compiled within Options.CompileTimeout.
	ErrCompileTime = errors.New("compiling took too long")
	// ErrABI is no callout of this version of the ABI: an export is missing, something
	// has another type, or it imports what no version offers.
	ErrABI = errors.New("no callout of this ABI")
	// ErrCapability requires a capability that it is not granted, or uses one unasked.
	ErrCapability = errors.New("a capability is not granted")
	// ErrConfig refuses its configuration, or takes none and was given one.
	ErrConfig = errors.New("the configuration is refused")
	// ErrSelfTest failed when it was started, or asked for the first time.
	ErrSelfTest = errors.New("the self-test failed")
	// ErrClosed is the answer of a module that is closed.
	ErrClosed = errors.New("the module is closed")
)

// A ConfigError is a guest's no to a configuration, when it gets it or in its self-test.
// A guest that traps has not said no.
type ConfigError struct {
	Why  string // in the guest's own words, if it was asked
	when string
}

func (e *ConfigError) Error() string { return e.when + e.Why }

// An unfit error has its own text, and is of a kind.
type unfit struct {
	error
	kind error
}

func (e *unfit) Unwrap() []error { return []error{e.error, e.kind} }

// as says of what kind an error is that does not say so itself.
func as(kind, err error) error {
	if err == nil {
		return nil
	}
	if _, known := errors.AsType[*unfit](err); known {
		return err
	}
	return &unfit{err, kind}
}

// ofMeter is an error of package meter. What is not valid is said to be so.
func ofMeter(err error, notValid string) error {
	if e, ok := errors.AsType[*meter.Error](err); ok && e.Over {
		return as(ErrTooLarge, err)
	}
	if err == nil {
		return nil
	}
	return as(ErrInvalid, fmt.Errorf("%s%w", notValid, err))
}
