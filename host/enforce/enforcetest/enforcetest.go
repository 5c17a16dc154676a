// Package enforcetest is the suite that every enforcement backend passes: one
// list of connections is decided the same way by each of them and by the engine
// alone.
//
// The connections are made by the test binary itself, started anew: TestMain of
// the backend's tests calls Client first.
package enforcetest

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/enforce"
	"github.com/calloutd/calloutd/host/fwpm"
)

// A Backend enforces a policy on the connections of a command.
type Backend interface {
	// Run starts cmd, enforces what the site decides on it and its children, and
	// returns when they are gone.
	Run(ctx context.Context, site Site, cmd *exec.Cmd) error
	// Abilities say what the suite may ask for.
	Abilities() Abilities
}

// A Placer is a backend whose programs have another network than the test.
type Placer interface {
	// Place calls listen where servers are that the programs reach, with their
	// address there.
	Place(network string, listen func(host string))
}

// A Site is what a backend enforces.
type Site struct {
	ALE       *ale.Enforcer
	Policy    *fwpm.Policy // what ALE's engine enforces
	Logf      func(format string, args ...any)
	OnBlocked func(enforce.Denial)
}

// Abilities are what backends differ in.
type Abilities struct {
	// AsksEngine: the engine decides all, and nothing is decided without it.
	AsksEngine bool
	// BlocksWithErrno: what is blocked fails with EACCES at its system call. Else
	// it may be reset.
	BlocksWithErrno bool
	// SeesPrograms: a filter can ask which program it is.
	SeesPrograms bool
	// DecidesDatagrams: UDP is decided. Else it is not in the list.
	DecidesDatagrams bool
	// RedirectsDatagrams: UDP flows are redirected, with their records.
	RedirectsDatagrams bool
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	can := b.Abilities()
	w := newWorld(t, b)
	list := w.cases(can)

	simulated := w.newSite(t)
	for i, c := range list {
		list[i].simulated = simulated.simulate(t, c)
		require.Equal(t, c.want, list[i].simulated, "the engine alone, %s", c.name)
	}

	real := w.newSite(t)
	w.serve(t, real)
	out := client(t, list, func(cmd *exec.Cmd) error { return b.Run(t.Context(), real.site(t), cmd) })
	for i, c := range list {
		t.Run(c.name, func(t *testing.T) {
			got := out[i]
			if !can.BlocksWithErrno && strings.HasPrefix(got, "reset") {
				got = blocked
			}
			require.Equal(t, c.simulated, got)
		})
	}
	t.Run("every block is told", func(t *testing.T) { // Perhaps in another order, or a little later.
		require.Eventually(t, func() bool { return len(real.denials()) >= len(simulated.denials()) }, time.Minute, time.Millisecond)
		require.ElementsMatch(t, simulated.denials(), real.denials())
	})
	if can.AsksEngine {
		t.Run("the engine is asked the same", func(t *testing.T) {
			require.Equal(t, strings.Join(simulated.asked(), "\n"), strings.Join(real.asked(), "\n"))
		})
	}
}
