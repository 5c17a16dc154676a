package arenastore_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
)

const starveVar = "ARENASTORE_TEST_STARVE"

func TestMain(m *testing.M) {
	if os.Getenv(starveVar) != "" {
		starve()
	}
	os.Exit(m.Run())
}

// A system that gives no memory is a reason to refuse a hop, not to end the
// process: the limit of address space is the kernel's, set in a child process.
func TestASystemWithoutMemoryRefuses(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), starveVar+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `^redirect: the record store is full: the system gives no more memory than \d+ MiB: cannot allocate memory; all \d+ hops are there\n$`, string(out))
}

func starve() {
	runtime.GOMAXPROCS(1) // Go gets no thread under the limit: it would end the process.
	debug.SetGCPercent(-1)
	s := arenastore.Memories["system"](arenastore.Options{})
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	var pages uint64
	if _, err := fmt.Fscan(strings.NewReader(string(status)), &pages); err != nil {
		panic(err)
	}
	limit := pages*uint64(os.Getpagesize()) + 20<<20
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		panic(err)
	}
	h := redirect.Hop{Record: blob, Context: blob}
	for ; err == nil; h.Serial++ {
		err = s.Put(&redirect.Hop{Serial: h.Serial, Record: blob, Context: blob})
	}
	for serial := range h.Serial - 1 {
		if e := s.Retain(serial); e != nil {
			panic(e)
		}
	}
	if !errors.Is(err, redirect.ErrFull) {
		panic(err)
	}
	fmt.Printf("%v; all %d hops are there\n", err, s.Len())
	os.Exit(0)
}
