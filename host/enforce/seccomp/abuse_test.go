//go:build linux && (amd64 || arm64)

package seccomp

import (
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/enforce/enforcetest"
)

func init() {
	programs["abuse"] = func(args []string) {
		n, err := strconv.Atoi(args[1])
		check(err)
		enforcetest.Abuse(n, func() *exec.Cmd { return helper("hammer", args[0]) })
		fd, e := dial(must(args[0]))
		abort(fd)
		say(name(e))
	}
	programs["hammer"] = func(args []string) {
		enforcetest.Begun()
		for {
			fd, _ := dial(must(args[0]))
			abort(fd)
		}
	}
}

// abuse lets so many connections be made.
func abuse(t *testing.T, a *enforcetest.Account, processes, connections int) {
	cmd := helper("abuse", "198.51.100.7:80", strconv.Itoa(processes))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var once sync.Once
	stop := func() { once.Do(func() { in.Close() }) }
	defer stop()
	a.After(connections, stop)
	_, err = Run(t.Context(), Options{ALE: a.ALE, Logf: t.Logf, OnBlocked: a.OnBlocked}, cmd)
	require.NoError(t, err)
	require.True(t, cmd.ProcessState.Success())
}

// Programs that are killed wherever they are leave nothing behind: no descriptor,
// goroutine, record or memory; and each decision has an outcome.
func TestAbuse(t *testing.T) {
	need(t)
	processes, connections := enforcetest.AbuseSize()
	a := enforcetest.NewAccount(t)
	abuse(t, a, processes, connections/10)
	before := enforcetest.Held(t)
	abuse(t, a, processes, connections)
	before.NoMore(t, int64(4<<20)+int64(connections)*64)
	a.Balance(t)
}
