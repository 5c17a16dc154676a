package apart

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const mebi = 1 << 20

// roomy is enough for the race detector.
var roomy = Limits{Memory: 4 << 30}

// tasks are what the other process does, by the first word of what it is told.
var tasks = map[string]func(in string) string{
	"echo":  func(in string) string { return in },
	"panic": func(string) string { panic("as it was told") },
	"spin": func(string) string {
		for n := uint64(1); n != 0; n += 2 { // An odd number never is.
		}
		return ""
	},
	"flood": func(string) string { return strings.Repeat("x", maxAnswer) },
	"eat": func(string) string {
		var all [][]byte
		for len(all) < mebi {
			all = append(all, bytes.Repeat([]byte{1}, mebi))
		}
		return string(all[0][:1])
	},
}

func task(in []byte) []byte {
	word, rest, _ := strings.Cut(string(in), " ")
	return []byte(tasks[word](rest))
}

func TestMain(m *testing.M) {
	Serve(task)
	os.Exit(m.Run())
}

func TestWhatItSaysComesBack(t *testing.T) {
	long := strings.Repeat("long ", 1<<20)
	out, err := Run(t.Context(), roomy, []byte("echo "+long[:maxAnswer-1]))
	require.NoError(t, err)
	require.Equal(t, long[:maxAnswer-1], string(out))

	_, err = Run(t.Context(), roomy, []byte("flood"))
	require.EqualError(t, err, "the answer is longer than 4 MiB")
	_, err = Run(t.Context(), roomy, []byte("panic"))
	require.EqualError(t, err, "panic: as it was told")
}

func TestTimeEndsIt(t *testing.T) {
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, late)
	defer cancel()
	began := time.Now()
	_, err := Run(ctx, roomy, []byte("spin"))
	require.ErrorIs(t, err, late)
	require.Less(t, time.Since(began), time.Minute)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Positive(t, e.CPU)
}

// A program that never said what is to be run apart would start all of itself again.
func TestNothingRunsThatWasNotServed(t *testing.T) {
	served = false
	defer func() { served = true }()
	_, err := Run(t.Context(), roomy, []byte("echo"))
	require.ErrorIs(t, err, ErrUnserved)
}

// Where the system does not end it with who started it, it ends by itself.
func TestItEndsWithWhoToldIt(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{marker + "=1"}
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.NoError(t, binary.Write(in, binary.LittleEndian, [3]uint64{0, roomy.Memory, 4}))
	_, err = in.Write([]byte("spin"))
	require.NoError(t, err)
	ended := make(chan error)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatal("it does not spin: ", err)
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, in.Close())
	select {
	case <-ended:
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Fatal("it goes on")
	}
}
