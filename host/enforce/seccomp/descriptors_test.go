//go:build linux && (amd64 || arm64)

package seccomp

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

func init() {
	// dials when told: connects at each line, and says what came of it.
	programs["dials when told"] = func(args []string) {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			_, e := dial(netip.MustParseAddrPort(args[0]))
			say(name(e))
		}
	}
	// limits its supervisor: takes its right to descriptors away, and connects.
	programs["limits its supervisor"] = func(args []string) {
		say("limit", name(errno(unix.Prlimit(os.Getppid(), unix.RLIMIT_NOFILE, &unix.Rlimit{}, nil))))
		_, e := dial(must(args[0]))
		say(name(e))
	}
}

// Whoever has its user can set the limits of a supervisor. One that may have no descriptors
// at all refuses, and ends with its program.
func TestProgramLimitsItsSupervisor(t *testing.T) {
	l := listen(t)
	cmd := unprivileged(t, "protected", "permit", "limits its supervisor", l.addr.String())
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	out := output(t, cmd)
	require.Regexp(t, "(?s)^limit ok\n(log: .*too many open files\n)+EACCES\n", out)
	require.Empty(t, l.reached())
}

// A supervisor that has no descriptors left lets nothing go on undecided: it refuses, says
// why, and decides again when there are some.
func TestSupervisorWithoutDescriptors(t *testing.T) {
	l := listenRaw()
	defer unix.Close(l)
	_, addr, _ := getName(l)
	in, tell, err := os.Pipe()
	require.NoError(t, err)
	said, out, err := os.Pipe()
	require.NoError(t, err)
	var mu sync.Mutex
	var logged []string
	cmd := helper("dials when told", addr.String())
	cmd.Stdin, cmd.Stdout = in, out
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Landlock would refuse what goes on, too.
		supervise(t, Options{ALE: permit, without: without{landlock: true}, Logf: func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			logged = append(logged, fmt.Sprintf(format, args...))
		}}, cmd)
	}()
	answers := bufio.NewScanner(said)
	dials := func() string {
		_, err := tell.WriteString("go\n")
		require.NoError(t, err)
		require.True(t, answers.Scan())
		return answers.Text()
	}
	require.Equal(t, "ok", dials())
	restore := enforcetest.WithoutDescriptors()
	defer func() { restore() }()
	require.Equal(t, "EACCES", dials())
	restore()
	require.Equal(t, "ok", dials())
	require.NoError(t, tell.Close())
	<-ended
	for _, f := range []*os.File{in, said, out} {
		require.NoError(t, f.Close())
	}
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, strings.Join(logged, "\n"), "too many open files")
}
