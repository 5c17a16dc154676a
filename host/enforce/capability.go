// Package enforce says what this system can enforce. The backends are its
// subpackages.
package enforce

import (
	"errors"
	"fmt"
	"io/fs"
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
	Descendants  = "looking into one's own processes"
)

// What calloutd does with the backends, for Capability.Command.
const (
	CommandRun     = "run"
	CommandIsolate = "run --isolate"
	CommandAttach  = "attach"
	CommandGateway = "gateway"
)

// Need is how much a command depends on a capability.
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
	Command       string // who needs it
	Supported     bool
	Need          Need
	MinimumKernel string // the first Linux that has it; empty when no version helps
	Detail        string // what it is for
	Why           string // why it is missing
	Remedy        string // what helps, if it is known
}

// Found fills in what a probe said.
func (c *Capability) Found(err error) {
	if c.Supported = err == nil; c.Supported {
		return
	}
	c.Why, c.Remedy = err.Error(), remedy(c.Name, err)
	if errors.Is(err, fs.ErrPermission) {
		c.MinimumKernel = "" // The kernel has it, and keeps it from this user.
	}
}

// capabilities lists what the seccomp backend needs, as unsupported.
func capabilities() []Capability {
	cs := []Capability{
		{Name: UserNotif, Need: Required, MinimumKernel: "5.5", Detail: "traps connect()"},
		{Name: PidfdGetfd, Need: Required, MinimumKernel: "5.6", Detail: "acts on the program's own socket"},
		{Name: Descendants, Need: Required, Detail: "reads the address that a program gives"},
		{Name: NoListener, Need: Required, Detail: "a process tree has at most one listener"},
		{Name: LandlockTCP, Need: Recommended, MinimumKernel: "6.7", Detail: "denies a connect that wins a race against the trap"},
		{Name: WaitKillable, Need: Optional, MinimumKernel: "5.19", Detail: "signals do not interrupt a decision; one before it is under way, without SA_RESTART, ends the call with EINTR"},
		{Name: SyncWakeUp, Need: Optional, MinimumKernel: "6.6", Detail: "halves the latency or better"},
		{Name: PidfdThread, Need: Optional, MinimumKernel: "6.9", Detail: "threads that do not share their descriptors"},
		{Name: UserNS, Command: CommandIsolate, Need: Required, MinimumKernel: "3.8", Detail: "isolates a program in an empty network"},
	}
	for i := range cs {
		if cs[i].Command == "" {
			cs[i].Command = CommandRun
		}
	}
	return cs
}

// Missing returns the first capability of cs that a command requires and that is
// not supported, as an *UnsupportedError, or nil.
func Missing(cs []Capability, command string) error {
	for _, c := range cs {
		if c.Command == command && c.Need == Required && !c.Supported {
			return &UnsupportedError{Name: c.Name, MinimumKernel: c.MinimumKernel, Why: c.Why}
		}
	}
	return nil
}
