package arenastore_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// array is the least that keeping the bytes of a hop can cost: a serial is a place in
// memory with huge pages. No lock, no index, no references, no limit, and no two hops
// of one serial; it is the machine's share of what the others take.
type array struct {
	mem  []byte
	free []uint64
}

const place = 1104 // for the largest hop of setHop

func newArray() *array {
	const n = 1<<20 + chunk
	mem, err := unix.Mmap(-1, 0, n*place, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	a := &array{mem: mem}
	for i := range uint64(n) {
		a.free = append(a.free, n-i)
	}
	runtime.AddCleanup(a, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return a
}

func (a *array) NewSerial() uint64 {
	last := len(a.free) - 1
	serial := a.free[last]
	a.free = a.free[:last]
	return serial
}

func (a *array) at(serial uint64) []byte { return a.mem[(serial-1)*place:][:place] }

func (a *array) encoded(serial uint64) []byte {
	b := a.at(serial)
	return b[2:][:binary.LittleEndian.Uint16(b)]
}

func (a *array) Put(h *redirect.Hop) error {
	n, err := h.EncodedLen()
	if err != nil {
		return err
	}
	_, err = h.AppendBinary(binary.LittleEndian.AppendUint16(a.at(h.Serial)[:0], uint16(n)))
	return err
}

func (a *array) Acquire(serial uint64) (*redirect.Hop, error) {
	return redirect.DecodeHop(bytes.Clone(a.encoded(serial)))
}

func (a *array) AppendEncoded(b []byte, serial uint64) ([]byte, error) {
	return append(b, a.encoded(serial)...), nil
}

func (a *array) Release(serial uint64) error {
	a.free = append(a.free, serial)
	return nil
}

// floor is the least that a store of bytes can be in Go: sharded maps and locks.
// It has no references, no hops and no limit.
type floor struct {
	serial uint64
	shards [256]struct {
		sync.RWMutex
		m map[uint64][]byte
		_ [32]byte
	}
}

func newFloor() *floor {
	f := new(floor)
	for i := range f.shards {
		f.shards[i].m = map[uint64][]byte{}
	}
	return f
}

func (f *floor) Put(h *redirect.Hop) error {
	n, err := h.EncodedLen()
	if err != nil {
		return err
	}
	b, _ := h.AppendBinary(make([]byte, 0, n))
	d := &f.shards[h.Serial%256]
	d.Lock()
	d.m[h.Serial] = b
	d.Unlock()
	return nil
}

func (f *floor) NewSerial() uint64 { f.serial++; return f.serial }

func (f *floor) Acquire(serial uint64) (*redirect.Hop, error) {
	d := &f.shards[serial%256]
	d.RLock()
	b := d.m[serial]
	d.RUnlock()
	return redirect.DecodeHop(append([]byte(nil), b...))
}

func (f *floor) AppendEncoded(b []byte, serial uint64) ([]byte, error) {
	d := &f.shards[serial%256]
	d.RLock()
	defer d.RUnlock()
	return append(b, d.m[serial]...), nil
}

func (f *floor) Release(serial uint64) error {
	d := &f.shards[serial%256]
	d.Lock()
	delete(d.m, serial)
	d.Unlock()
	return nil
}

// A keeper is what all of them have.
type keeper interface {
	Put(*redirect.Hop) error
	Acquire(uint64) (*redirect.Hop, error)
	Release(uint64) error
	NewSerial() uint64
}

var keepers = []struct {
	name string
	open func() keeper
}{
	{"array", func() keeper { return newArray() }},
	{"floor", func() keeper { return newFloor() }},
	{"memstore", func() keeper { return memstore.New(1 << 24) }},
	{"arenastore", func() keeper { return arenastore.New(arenastore.Options{MaxHops: 1 << 24}) }},
}

func encodedLen(serial uint64) int {
	h := hop(serial)
	n, _ := h.EncodedLen()
	return n
}

// rss is the memory of the process, in bytes.
func rss(tb testing.TB) int {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(tb, err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(tb, err)
	return kb << 10
}

// settledRSS is without what is on its way back to the system.
func settledRSS(tb testing.TB) int {
	for range 5 {
		debug.FreeOSMemory()
		time.Sleep(20 * time.Millisecond) // Cleanups of older stores run on their own.
	}
	return rss(tb)
}

// owned makes hops that share no memory, as the decision path does.
func owned(serial uint64) *redirect.Hop {
	h := hop(serial)
	h.Record = append([]byte(nil), h.Record...)
	return h
}

func BenchmarkStore(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000, 1_000_000} {
		for _, k := range keepers {
			b.Run(fmt.Sprintf("%s/%d", k.name, n), func(b *testing.B) {
				benchmarkStore(b, k.open, n)
			})
		}
	}
}

// A stopwatch times what lies between two calls, without the preparation.
type stopwatch struct {
	total time.Duration
	ops   int
}

func (w *stopwatch) time(ops int, f func()) {
	start := cpu()
	f()
	w.total += cpu() - start
	w.ops += ops
}

// cpu is what the thread has worked so far: other work on the machine does not count.
func cpu() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func (w *stopwatch) report(b *testing.B) {
	b.ReportMetric(float64(w.total.Nanoseconds())/float64(w.ops), "ns/op")
}

// chunk is how many hops are made before they are put: few, so that they are in the
// cache as one that was just made for a connection is.
const chunk = 64

// fill puts hops that it makes by the chunk, and returns their serials.
func fill(b *testing.B, s keeper, n int, w *stopwatch) []uint64 {
	serials := make([]uint64, n)
	hops := make([]*redirect.Hop, 0, chunk)
	for at := 0; at < n; at += len(hops) {
		hops = hops[:0]
		for i := at; i < min(n, at+chunk); i++ {
			serials[i] = s.NewSerial()
			hops = append(hops, owned(serials[i]))
		}
		w.time(len(hops), func() {
			for _, h := range hops {
				if err := s.Put(h); err != nil {
					b.Error(err)
				}
			}
		})
	}
	return serials
}

// BenchmarkConnection is the life of a redirected connection in a store with n of
// them: its hop is made, kept, asked for once by the proxy and given up by both,
// while the oldest ones end. The time is the processor's, the collector included.
func BenchmarkConnection(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000, 1_000_000} {
		for _, k := range keepers {
			b.Run(fmt.Sprintf("%s/%d", k.name, n), func(b *testing.B) {
				s := k.open()
				live := fill(b, s, n, new(stopwatch))
				b.ReportAllocs()
				b.ResetTimer()
				start := processCPU(b)
				for i := range b.N {
					serial := s.NewSerial()
					_ = s.Put(owned(serial))
					_, _ = s.Acquire(serial)
					_ = s.Release(live[i%n])
					live[i%n] = serial
					if s, ok := s.(redirect.Store); ok { // The others have no references.
						_ = s.Release(serial)
					}
				}
				b.ReportMetric(float64((processCPU(b)-start).Nanoseconds())/float64(b.N), "ns/op")
			})
		}
	}
}

// BenchmarkParallel is BenchmarkConnection without the making of the hop, on all
// cores: with -cpu 1,2 it tells what a core more is worth.
func BenchmarkParallel(b *testing.B) {
	const live = 1000 // of each goroutine
	for _, k := range keepers[2:] {
		b.Run(k.name, func(b *testing.B) {
			s := k.open().(redirect.Store)
			b.RunParallel(func(pb *testing.PB) {
				var ring [live]redirect.Hop
				for i := 0; pb.Next(); i++ {
					h := &ring[i%live]
					if i >= live {
						_ = s.Release(h.Serial)
					}
					setHop(h, s.NewSerial())
					_ = s.Put(h)
				}
			})
		})
	}
}

// processCPU is what all threads of the process have worked so far.
func processCPU(tb testing.TB) time.Duration {
	var u unix.Rusage
	require.NoError(tb, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkStore(b *testing.B, open func() keeper, n int) {
	run := func(name string, f func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread() // For cpu.
			defer runtime.UnlockOSThread()
			f(b)
		})
	}
	filled := func() (keeper, []uint64) { // in random order
		s := open()
		serials := fill(b, s, n, new(stopwatch))
		rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { serials[i], serials[j] = serials[j], serials[i] })
		runtime.GC()
		return s, serials
	}
	run("memory", func(b *testing.B) {
		before := settledRSS(b)
		s, serials := filled()
		payload := 8 * n // the serials themselves
		for _, serial := range serials {
			payload += encodedLen(serial)
		}
		b.ReportMetric(float64(settledRSS(b)-before-payload)/float64(n), "overhead-B/hop")
		least := time.Duration(math.MaxInt64)
		for range 20 {
			start := time.Now()
			runtime.GC()
			least = min(least, time.Since(start))
		}
		b.ReportMetric(float64(least.Microseconds()), "gc-µs")
		b.ReportMetric(0, "ns/op")
		runtime.KeepAlive(s)
		runtime.KeepAlive(serials)
	})
	run("put", func(b *testing.B) { // Into a store that grows from nothing to n.
		var w stopwatch
		for range max(1, b.N/n) {
			fill(b, open(), n, &w)
		}
		w.report(b)
	})
	run("get", func(b *testing.B) {
		s, serials := filled()
		b.ReportAllocs()
		b.ResetTimer()
		var w stopwatch
		w.time(b.N, func() {
			for i := range b.N {
				if _, err := s.Acquire(serials[i%n]); err != nil {
					b.Fatal(err)
				}
			}
		})
		w.report(b)
	})
	run("copy", func(b *testing.B) { // The encoding, into memory that is used again.
		k, serials := filled()
		s, ok := k.(interface {
			AppendEncoded(b []byte, serial uint64) ([]byte, error)
		})
		if !ok {
			b.Skip("it keeps hops and no encodings")
		}
		b.ReportAllocs()
		b.ResetTimer()
		var w stopwatch
		buf := make([]byte, 0, 2048)
		w.time(b.N, func() {
			for i := range b.N {
				if _, err := s.AppendEncoded(buf, serials[i%n]); err != nil {
					b.Fatal(err)
				}
			}
		})
		w.report(b)
	})
	run("delete", func(b *testing.B) { // All, in random order.
		var w stopwatch
		for range max(1, b.N/n) {
			s, serials := filled()
			w.time(n, func() {
				for _, serial := range serials {
					_ = s.Release(serial)
				}
			})
		}
		w.report(b)
	})
	run("churn", func(b *testing.B) { // A random hop goes and another comes.
		s, live := filled()
		var put, del stopwatch
		hops := make([]*redirect.Hop, min(n, chunk))
		for i := 0; i < b.N; i += len(hops) {
			for j := range hops {
				hops[j] = owned(s.NewSerial())
			}
			del.time(len(hops), func() {
				for j := range hops {
					_ = s.Release(live[(i+j)%n])
				}
			})
			put.time(len(hops), func() {
				for _, h := range hops {
					_ = s.Put(h)
				}
			})
			for j := range hops {
				live[(i+j)%n] = hops[j].Serial
			}
		}
		b.ReportMetric(float64(put.total.Nanoseconds())/float64(put.ops), "put-ns/op")
		b.ReportMetric(float64(del.total.Nanoseconds())/float64(del.ops), "delete-ns/op")
		b.ReportMetric(0, "ns/op")
	})
}
