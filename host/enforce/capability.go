// Package enforce says what this system can enforce. The backends are its
// subpackages.
package enforce

import (
	"errors"
	"fmt"
)

// ErrNotSupported is what every UnsupportedError is.
var ErrNotSupported = errors.New("enforce: not supported on this system")

// An UnsupportedError names what is missing.
type UnsupportedError struct {
	Name          string // what was wanted
	MinimumKernel string // the first Linux that has it; empty when no version helps
	Why           string // what the system said
}

func (e *UnsupportedError) Error() string {
	s := e.Name + " is not supported on this system"
	if e.MinimumKernel != "" {
		s += fmt.Sprintf(" (needs Linux %s)", e.MinimumKernel)
	}
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

// Is reports whether target is ErrNotSupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrNotSupported }

// Names of the capabilities.
const (
	UserNotif    = "seccomp user notification"
	PidfdGetfd   = "pidfd_getfd"
	WaitKillable = "seccomp WAIT_KILLABLE_RECV"
	SyncWakeUp   = "seccomp SYNC_WAKE_UP"
	PidfdThread  = "PIDFD_THREAD"
	LandlockTCP  = "Landlock TCP rules"
	UserNS       = "user namespaces"
	NoListener   = "no seccomp listener above this process"
)

// Need is how much the seccomp backend depends on a capability.
type Need string

// The needs.
const (
	Required    Need = "required"    // nothing works without it
	Recommended Need = "recommended" // without it a hostile program has a way round
	Optional    Need = "optional"    // without it things are slower, coarser, or one less
)

// A Capability is something a kernel may have.
type Capability struct {
	Name          string
	Supported     bool
	Need          Need
	MinimumKernel string
	Detail        string // what it is for
	Why           string // why it is missing
}

// capabilities lists them all, as unsupported.
func capabilities() []Capability {
	return []Capability{
		{Name: UserNotif, Need: Required, MinimumKernel: "5.5", Detail: "traps connect()"},
		{Name: PidfdGetfd, Need: Required, MinimumKernel: "5.6", Detail: "acts on the program's own socket"},
		{Name: NoListener, Need: Required, Detail: "a process tree has at most one listener"},
		{Name: LandlockTCP, Need: Recommended, MinimumKernel: "6.7", Detail: "denies a connect that wins a race against the trap"},
		{Name: WaitKillable, Need: Optional, MinimumKernel: "5.19", Detail: "signals do not restart a decision"},
		{Name: SyncWakeUp, Need: Optional, MinimumKernel: "6.6", Detail: "halves the latency or better"},
		{Name: PidfdThread, Need: Optional, MinimumKernel: "6.9", Detail: "threads that do not share their descriptors"},
		{Name: UserNS, Need: Optional, MinimumKernel: "3.8", Detail: "isolates a program in an empty network"},
	}
}

// Missing returns the first Required capability of cs that is not supported, as
// an *UnsupportedError, or nil.
func Missing(cs []Capability) error {
	for _, c := range cs {
		if c.Need == Required && !c.Supported {
			return &UnsupportedError{Name: c.Name, MinimumKernel: c.MinimumKernel, Why: c.Why}
		}
	}
	return nil
}
