//go:build unix

package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

func init() { children["full disk"] = fullDisk }

// A disk that takes no more is a reason to refuse, what was taken stays, and when
// there is room again the store is well and its file complete. The limit is the
// kernel's (RLIMIT_FSIZE), so it is set in another process.
func TestAFullDiskRefuses(t *testing.T) {
	for name, d := range map[string]boltstore.Durability{"batched": boltstore.Batched, "sync": boltstore.Sync} {
		t.Run(name, func(t *testing.T) {
			p := path(t)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childVar+"=full disk", planVar+"="+fmt.Sprint(d, " ", p))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			var n int
			_, err = fmt.Sscanf(string(out), "%d hops", &n)
			require.NoError(t, err, "%s", out)
			hops := found(t, p)
			require.Len(t, hops, n)
			for i, h := range hops {
				require.Equal(t, hop(uint64(i), 0), h)
			}
		})
	}
}

func fullDisk() {
	signal.Ignore(syscall.SIGXFSZ)
	o := boltstore.Options{Queue: 100_000}
	_, err := fmt.Sscan(os.Getenv(planVar), &o.Durability, &o.Path)
	must(err)
	var failed, well, made int
	boltstore.SetAt(func(point string) {
		if point == "rewrite renamed" {
			made++
		}
	})
	o.OnWrite = func(err error) {
		if err != nil {
			failed++
		} else {
			well++
		}
	}
	s, err := boltstore.Open(o)
	must(err)
	room(400 << 10)
	n := putUntil(s, "file too large")
	room(1 << 40)
	must(s.Flush(context.Background()))
	must(s.Put(hop(uint64(n), 0)))
	must(s.Close())
	if failed != 1 || well != 1 || made != 2 {
		panic(fmt.Sprint(failed, " failures told, ", well, " recoveries; made anew ", made, " times: at the beginning and after the failure, whose file is not trusted"))
	}
	fmt.Println(n+1, "hops")
}

// putUntil puts hops until one is refused for a reason, and returns how many were not.
func putUntil(s *boltstore.Store, reason string) (n int) {
	for {
		err := s.Put(hop(uint64(n), 0))
		if err == nil {
			n++
			continue
		}
		if !errors.Is(err, redirect.ErrUnavailable) || !strings.Contains(err.Error(), reason) {
			panic(fmt.Sprint("refused with ", err))
		}
		if s.Len() != n {
			panic(fmt.Sprintf("%d hops were taken and %d are there", n, s.Len()))
		}
		return n
	}
}

// room is how large a file may be.
func room(n uint64) {
	var l syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l))
	l.Cur = min(n, l.Max)
	must(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l))
}
