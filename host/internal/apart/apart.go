// Package apart runs a function of this program in a process of its own: this program
// again, with nothing of this process's but its input, and with limits that are the
// system's. What takes it too long, or more memory than it may have, ends it and nothing
// else.
package apart

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host/internal/race"
)

const (
	// marker is in the environment of who was started by Run, and nothing else is.
	marker = "CALLOUTD_APART"
	// maxAnswer and maxWords bound what is read from a process that may not be what it was.
	maxAnswer = 4 << 20
	maxWords  = 8 << 10
)

// Limits are those of the system. Those that it does not have do not hold; the time of a
// context that Run gets always does.
type Limits struct {
	CPU    time.Duration // of the processor, in whole seconds
	Memory uint64        // in bytes: what it may write to
}

// An Error is a process that did not come to its end.
type Error struct {
	Why    error // the cause of the context, ErrMemory, ErrCPU, ErrKilled, or what it said
	CPU    time.Duration
	Memory uint64 // the most that it had in use, 0 where that is not known
}

func (e *Error) Error() string { return e.Why.Error() }
func (e *Error) Unwrap() error { return e.Why }

var (
	// ErrMemory had no more of it.
	ErrMemory = errors.New("out of memory")
	// ErrCPU had the processor for as long as it may.
	ErrCPU = errors.New("out of processor time")
	// ErrKilled was ended by somebody else (SIGKILL).
	ErrKilled = errors.New("it was killed")
	// ErrUnserved is a program that would run all of itself again.
	ErrUnserved = errors.New("nothing was said to be run apart")
)

var served bool

// Serve runs f and ends the process if Run started it, and returns if not: it is the first
// thing that a program does.
func Serve(f func(in []byte) (out []byte)) {
	served = true
	if os.Getenv(marker) == "" {
		return
	}
	os.Exit(serve(f, os.Stdin, os.Stdout))
}

// Served reports whether Run can do its work.
func Served() bool { return served }

func serve(f func([]byte) []byte, in io.Reader, out io.Writer) int {
	// What comes until the limits hold is of who started this.
	var h [3]uint64
	err := binary.Read(in, binary.LittleEndian, &h)
	if err == nil {
		err = confine(Limits{time.Duration(h[0]), h[1]})
	}
	task := make([]byte, h[2])
	if err == nil {
		_, err = io.ReadFull(in, task)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		_, _ = in.Read(make([]byte, 1))
		os.Exit(1) // Who wants to know is gone.
	}()
	if _, err := out.Write(f(task)); err != nil {
		return 1
	}
	return 0
}

// Run runs what Serve was given in another process. The error is an *Error, or that no
// process could be made.
func Run(ctx context.Context, l Limits, in []byte) ([]byte, error) {
	if !served {
		return nil, ErrUnserved
	}
	self, err := executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = os.Args[:1] // It may be what a program does by its name.
	cmd.Env = []string{marker + "=1"}
	if race.Enabled {
		cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // It would take a second to end.
	}
	cmd.Dir = root
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answer, words := &bounded{most: maxAnswer}, &bounded{most: maxWords}
	cmd.Stdout, cmd.Stderr = answer, words
	before := killedForMemory()
	// The process ends with the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	switch err := cmd.Start(); {
	case err != nil && ctx.Err() != nil:
		return nil, &Error{Why: context.Cause(ctx)}
	case err != nil:
		return nil, err
	}
	go func() {
		// It stays open until the end: a process that sees it closed ends.
		_ = binary.Write(stdin, binary.LittleEndian, [3]uint64{uint64(l.CPU), l.Memory, uint64(len(in))})
		_, _ = stdin.Write(in)
	}()
	err = cmd.Wait()
	if err == nil && answer.Len() < maxAnswer {
		return answer.Bytes(), nil
	}
	e := &Error{CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), Memory: resident(cmd.ProcessState)}
	e.Why = why(ctx, l, e, err, words.String(), before)
	return nil, e
}

// spare is how much less than its limit a process has in use that has no more: what the
// runtime of Go takes of the system in one piece, and the stacks of threads.
const spare = 128 << 20

// why says what ended a process. before: how many the system had ended for want of memory.
func why(ctx context.Context, l Limits, e *Error, err error, words string, before uint64) error {
	first, _, _ := strings.Cut(words, "\n")
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case strings.Contains(words, "out of memory"), strings.Contains(words, "cannot allocate"), strings.Contains(words, "failed to allocate"):
		return ErrMemory
	case killed(err) && l.CPU > 0 && e.CPU >= l.CPU/2: // The kernel counts ticks for the limit: what it says afterwards is less.
		return ErrCPU
	case killed(err) && killedForMemory() == before:
		return ErrKilled
	case killed(err): // Perhaps another one was, too: that is what is likely.
		return ErrMemory
	// The runtime does not look at all that the system answers.
	case e.Memory+spare >= l.Memory && (strings.HasPrefix(words, "SIGSEGV") || strings.Contains(words, "pthread_create failed")):
		return ErrMemory
	case first != "":
		return errors.New(first)
	case err == nil:
		return fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)
	}
	return err
}

// bounded keeps the beginning of what is written.
type bounded struct {
	bytes.Buffer
	most int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), b.most-b.Len())])
	return len(p), nil
}
