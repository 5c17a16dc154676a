package guest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// A TrapError is a guest that failed; its instance is gone.
type TrapError struct {
	Module string
	Err    error
}

func (e *TrapError) Error() string {
	return fmt.Sprintf("callout %q failed: %s", e.Module, brief(e.Err.Error()))
}

func (e *TrapError) Unwrap() error { return e.Err }

// briefly is an error with a stack trace, for people.
type briefly struct{ error }

func (e briefly) Error() string { return brief(e.error.Error()) }
func (e briefly) Unwrap() error { return e.error }

// maxFrames is how many functions of a stack a person wants to see.
const maxFrames = 4

// A stack in memory that is full is an access out of bounds; so many calls of one function
// say that it was.
const (
	outOfBounds = "out of bounds memory access"
	repeats     = 5
)

// moreFrames ends a trace of as many functions as wazero names.
const moreFrames = "omitted frames"

// brief puts the stack trace of wazero on a line, since it goes to people: the
// functions, innermost first, with their lines where the module has such.
func brief(text string) string {
	msg, trace, found := strings.Cut(text, "\nwasm stack trace:")
	if !found {
		return msg
	}
	var frames []string
	calls := map[string]int{}
	for line := range strings.Lines(trace) {
		switch line := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "."): // .name(i32) i32
			name, _, _ := strings.Cut(line[1:], "(")
			if calls[name]++; calls[name] == repeats && strings.HasSuffix(msg, outOfBounds) {
				msg += " (recursion?)"
			}
			if len(frames) <= maxFrames && !strings.HasPrefix(name, meter.Prefix) {
				frames = append(frames, name)
			}
		case line == "" || len(frames) > maxFrames:
		case strings.HasPrefix(line, "0x") && len(frames) > 0: // 0x1f: file.c:12:3
			if _, place, ok := strings.Cut(line, ": "); ok {
				frames[len(frames)-1] += " (" + strings.TrimSuffix(place, " (inlined)") + ")"
			}
		}
	}
	if len(frames) == 0 {
		return msg
	}
	return msg + " in " + strings.Join(frames[:min(len(frames), maxFrames)], " < ")
}

var (
	errFuel  = errors.New("the fuel budget is spent (endless loop or recursion?)")
	errDepth = errors.New("the call depth is over the limit (recursion?)")
)

// cause tells a spent budget and calls that nest too deep from other traps: all
// are unreachable.
func (i *instance) cause(err error) error {
	if g := i.mod.ExportedGlobal(meter.DepthGlobal); g != nil && int32(g.Get()) < 0 {
		_, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
		return fmt.Errorf("%w\nwasm stack trace:%s", errDepth, trace)
	}
	if i.budget == nil || int32(i.budget.Get()) >= 0 {
		return err
	}
	return spent(err)
}

// startCause is cause for a module's start function: there is no instance whose globals
// would tell, only what was called. That calls nest too deep, many say of which the innermost
// is among the others, too.
func startCause(err error) error {
	msg, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
	innermost, others, _ := strings.Cut(strings.TrimPrefix(trace, "\n\t"), "\n")
	switch {
	case strings.HasPrefix(innermost, "."+meter.Refill):
		return fmt.Errorf("start function: %w", spent(err))
	case strings.HasSuffix(msg, "unreachable") && strings.Contains(others, moreFrames) && strings.Contains(others, "\t"+innermost+"\n"):
		return fmt.Errorf("start function: %w\nwasm stack trace:%s", errDepth, trace)
	}
	return err
}

// spent says that the fuel was, and where.
func spent(err error) error {
	_, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
	lines := strings.SplitAfterN(strings.TrimPrefix(trace, "\n"), "\n", 2) // The first is the meter's own.
	if len(lines) < 2 {
		return errFuel
	}
	return fmt.Errorf("%w\nwasm stack trace:\n%s", errFuel, lines[1])
}

// faulty tells what a guest failed at from what was not asked, or not any more.
func faulty(err error) bool {
	trap, is := err.(*TrapError)
	return is && trap.Err != ErrClosed
}

// unasked tells what nobody was asked, since the callout is closed or in quarantine.
func unasked(err error) bool {
	_, q := err.(*QuarantineError)
	trap, is := err.(*TrapError)
	return q || is && trap.Err == ErrClosed
}

// isTrap tells a guest that failed from one that said no.
func isTrap(err error) bool {
	var no *refusal
	return !errors.As(err, &no)
}
