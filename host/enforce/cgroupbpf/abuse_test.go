//go:build linux && (amd64 || arm64)

package cgroupbpf

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/enforce/enforcetest"
	"github.com/calloutd/calloutd/host/fwp"
)

// abused keeps n programs connecting to destinations, which are killed.
func abused(args string) string {
	number, to, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return err.Error()
	}
	enforcetest.Abuse(n, func() *exec.Cmd { return exec.Command(os.Args[0], "hammers/"+to) })
	return "ended"
}

// Programs that are killed wherever they are leave nothing behind that runs here, and nothing
// in the kernel's maps, and each decision has an outcome.
func TestAbuse(t *testing.T) {
	processes, connections := enforcetest.AbuseSize()
	origin := greet(t, "tcp4", "127.0.0.1:0", "origin", nil)
	at, reached := reached(t, unix.SOCK_STREAM)
	a := enforcetest.NewAccount(t, filter(2, authConnect, fwp.ActionBlock, port(at.Port())))
	s := newSite(t, a.Policy, nil)
	s.opts.ALE, s.opts.OnBlocked = a.ALE, func(d enforce.Denial) {
		if d.Remote != at {
			a.OnBlocked(d)
		}
	}
	x := s.attach(t)
	what := fmt.Sprintf("abused/%d tcp4 198.51.100.7:80,tcp4 %v,tcp4 %v", processes, origin, at)
	abuse := func(h *helper, connections int) {
		var once sync.Once
		stop := func() { once.Do(func() { h.stdin.Close() }) }
		defer stop()
		a.After(connections, stop)
		require.NoError(t, h.cmd.Start())
		out, err := h.out.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "ended\n", out)
		require.NoError(t, h.cmd.Wait())
		require.Eventually(t, func() bool { return x.carried.Load() == 0 }, time.Minute, time.Millisecond, "connections are carried that nobody has")
	}
	first, second := s.prepare(t, 0, what), s.prepare(t, 0, what)
	abuse(first, connections/10)
	before := enforcetest.Held(t)
	abuse(second, connections)
	before.NoMore(t, int64(4<<20)+int64(connections)*64)
	a.Balance(t)
	require.Zero(t, reached())
	for of, m := range map[string]*ebpf.Map{"connections": x.objs.Waiting, "datagrams": x.objs.Flows} {
		require.Eventually(t, func() bool { return entries(t, m) == 0 }, time.Minute, time.Millisecond, "records of %s are left in the kernel", of)
	}
	require.NoError(t, x.Close())
}

// entries is how many a map has.
func entries(t *testing.T, m *ebpf.Map) (n int) {
	k, v := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	all := m.Iterate()
	for all.Next(&k, &v) {
		n++
	}
	require.NoError(t, all.Err())
	return n
}
