//go:build amd64

package boltstore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

func init() { children["faults"] = faults }

var faultStep = flag.Int("faults", 11, "each how manieth system call TestWhateverCallFails lets fail; 1 takes minutes")

// TestWhateverCallFails lets system calls fail, one of all that a store makes or all from
// one on until the store says so: it refuses what it cannot keep, loses nothing that it
// acknowledged, and goes on when they work again.
func TestWhateverCallFails(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	// Go looks now and then at its cgroup for how many processors there are, with one of
	// these calls on the thread that takes them from who waits: the supervisor would never
	// have the only one.
	cmd.Env = append(os.Environ(), childVar+"=faults", planVar+"="+fmt.Sprint(*faultStep, " ", t.TempDir()), "GODEBUG=updatemaxprocs=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, call := range []string{"fdatasync", "pwrite64", "pread64", "newfstatat"} {
		require.Contains(t, string(out), call, "never failed")
	}
	t.Logf("%s", out)
}

// faults is the process whose calls fail.
func faults() {
	var step int
	var dir string
	_, err := fmt.Sscan(os.Getenv(planVar), &step, &dir)
	must(err)
	boltstore.SetCompactFrom(64 << 10)
	old := filepath.Join(dir, "old.db")
	s, err := boltstore.Open(boltstore.Options{Path: old})
	must(err)
	for i := range uint64(30) {
		must(s.Put(hop(i, 0)))
	}
	must(s.Close())
	contents, err := os.ReadFile(old)
	must(err)
	f := listen()
	failed := map[string]int{}
	for i, r := range []trial{
		{o: boltstore.Options{Durability: boltstore.Sync}, errno: unix.EIO, calls: 1},
		{o: boltstore.Options{Durability: boltstore.Sync}, errno: unix.ENOSPC, calls: 1 << 40},
		{o: boltstore.Options{Durability: boltstore.Batched}, errno: unix.ENOSPC, calls: 1},
		{o: boltstore.Options{Durability: boltstore.Batched}, errno: unix.EIO, calls: 1 << 40},
		{o: boltstore.Options{Durability: boltstore.None}, errno: unix.EIO, calls: 1},
	} {
		r.failing, r.o.Path = f, filepath.Join(dir, "records.db")
		for from := 1 + i%step; ; from += step { // Others for each.
			must(os.WriteFile(r.o.Path, contents, 0o600))
			r.hops, r.errs = map[uint64]*redirect.Hop{}, nil
			for i := range uint64(30) {
				r.hops[i] = hop(i, 0)
			}
			call := r.run(int64(from))
			if call == "" {
				break
			}
			failed[call]++
			must(os.Remove(r.o.Path))
		}
	}
	fmt.Println(failed)
}

// A trial is a store in which calls fail.
type trial struct {
	o       boltstore.Options
	errno   unix.Errno
	calls   int64 // how many fail
	failing *failing
	store   *boltstore.Store
	hops    map[uint64]*redirect.Hop // that were acknowledged and not given up
	errs    []error
}

// run has calls fail from one on and returns the name of the first; none if the store
// needs fewer.
func (r *trial) run(from int64) (call string) {
	r.o.Interval, r.o.Batch, r.o.OnRecover = time.Hour, 20, nil // It writes when it is asked to, or has a batch.
	r.failing.arm(from, r.calls, r.errno)
	var err error
	if r.store, err = boltstore.Open(r.o); r.note(err) {
		r.store, err = boltstore.Open(r.o)
		r.must(err)
	}
	r.work()
	closed := r.store.Close()
	r.note(closed)
	call = r.failing.disarm()
	found := map[uint64]*redirect.Hop{}
	r.o.OnRecover = func(h *redirect.Hop) bool { found[h.Serial] = h; return true }
	s, err := boltstore.Open(r.o)
	r.must(err)
	r.must(s.Close())
	if closed != nil && r.o.Durability != boltstore.Sync {
		return call // Close has said how many changes are lost.
	}
	if !reflect.DeepEqual(found, r.hops) {
		r.must(fmt.Errorf("%s failed: %d hops are found of %d, or others", call, len(found), len(r.hops)))
	}
	return call
}

// work is what makes each kind of write: batches, a file that grows, one that is made
// smaller.
func (r *trial) work() {
	for i := range uint64(8) {
		r.put(hop(100+i, 0))
	}
	r.flush()
	r.note(r.store.Replace(hop(7, 1)))
	r.hops[7] = hop(7, 1) // In memory in any case, and on disk with what follows.
	for i := range uint64(6) {
		r.put(hop(200+i, 0))
		r.release(i)
	}
	r.flush()
	for i := uint64(8); i < 30; i++ {
		r.release(i)
	}
	r.flush()
	for i := range uint64(6) {
		r.put(hop(300+i, 0))
	}
	if n := r.store.Len(); n != len(r.hops) {
		r.must(fmt.Errorf("memory has %d hops of %d", n, len(r.hops)))
	}
}

func (r *trial) put(h *redirect.Hop) {
	err := r.store.Put(h)
	if !r.note(err) {
		r.hops[h.Serial] = h
	} else if !errors.Is(err, redirect.ErrUnavailable) {
		r.must(err)
	}
}

func (r *trial) release(serial uint64) {
	r.must(r.store.Release(serial))
	delete(r.hops, serial)
}

// flush is well after what failed before.
func (r *trial) flush() {
	if r.note(r.store.Flush(context.Background())) {
		r.must(r.store.Flush(context.Background()))
	}
}

// note notes an error. Whatever fails until the store says so works again.
func (r *trial) note(err error) bool {
	if err == nil {
		return false
	}
	r.errs = append(r.errs, err)
	if r.calls > 1 {
		r.failing.disarm()
	}
	switch {
	case r.calls == 1 && errors.Is(err, berrors.ErrInvalid): // What bbolt could not read can be read now.
	case !strings.Contains(err.Error(), r.errno.Error()) || !strings.Contains(err.Error(), r.o.Path) || errors.Is(err, boltstore.ErrDamaged):
		r.must(err)
	}
	return true
}

func (r *trial) must(err error) {
	if err != nil {
		panic(fmt.Sprint(err, ", after ", errors.Join(r.errs...)))
	}
}
