package boltstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

var kills = flag.Int("kills", 0, "how often TestKillLosesNothing kills a process at a random point, besides once at each")

func init() { children["crash"] = crash }

// A plan is what the process that will be killed does, and where it ends.
type plan struct {
	Path       string
	Durability boltstore.Durability
	Seed       uint64
	Point      string // where it kills itself, empty if it is killed from outside
	Hit        int64  // when it is there for this time
	Lines      int    // from outside: after it has said so much
}

const planVar = "BOLTSTORE_TEST_PLAN"

// TestKillLosesNothing kills a process with kill -9 while it works on a file, and
// looks at what the next one finds: every hop that was acknowledged, as it was last
// acknowledged or as it was being changed to; and no hop that is something else.
// The file goes from one process to the next.
func TestKillLosesNothing(t *testing.T) {
	file := path(t)
	seen := history{}
	for i, p := range plans() {
		p.Path, p.Seed = file, uint64(i)
		t.Run(fmt.Sprintf("%d %s %d", i, p.Point, p.Hit), func(t *testing.T) {
			killed := run(t, p, seen)
			require.True(t, killed || *kills > 0, "it ended before it came to its point")
			seen.check(t, found(t, file))
		})
	}
}

// plans has a kill at each point at least, some of them from outside.
func plans() (ps []plan) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i, point := range boltstore.Points {
		hit := 1
		if i < 4 { // Not before there is something to lose.
			hit = 20
		}
		ps = append(ps, plan{Point: point, Hit: int64(hit)})
	}
	ps = append(ps, plan{Lines: 700, Durability: boltstore.Sync}, plan{Lines: 1500})
	for range *kills {
		p := plan{Durability: boltstore.Durability(rnd.IntN(3)), Point: boltstore.Points[rnd.IntN(len(boltstore.Points))], Hit: 1 + rnd.Int64N(60)}
		if rnd.IntN(3) == 0 {
			p.Point, p.Lines = "", rnd.IntN(3000)
		}
		ps = append(ps, p)
	}
	return ps
}

// run starts the process and writes down what it says until it ends.
func run(t *testing.T, p plan, seen history) (killed bool) {
	b, err := json.Marshal(p)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"=crash", planVar+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for n := 1; lines.Scan(); n++ {
		var kind string
		var serial, version uint64
		if _, err := fmt.Sscan(lines.Text(), &kind, &serial, &version); err != nil {
			continue // The kill cut it.
		}
		seen.note(kind, serial, version)
		if n == p.Lines {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	err = cmd.Wait()
	if err != nil {
		require.Equal(t, -1, cmd.ProcessState.ExitCode(), "it failed by itself: %v", err)
	}
	return err != nil
}

// A history is what may be on disk of each hop: its last acknowledged version or
// one that was on its way since. Version 0 is no hop.
type history map[uint64]*versions

type versions struct {
	acknowledged uint64
	since        []uint64
}

func (hs history) note(kind string, serial, version uint64) {
	v := hs[serial]
	if v == nil {
		v = &versions{}
		hs[serial] = v
	}
	switch {
	case kind == "begin":
		v.since = append(v.since, version)
	case kind == "end" && len(v.since) > 0:
		v.acknowledged, v.since = v.since[len(v.since)-1], nil
	}
}

func (hs history) check(t *testing.T, found []*redirect.Hop) {
	t.Helper()
	there := map[uint64]uint64{}
	for _, h := range found {
		require.Equal(t, hop(h.Serial, h.FilterID), h, "half a hop")
		there[h.Serial] = h.FilterID
		require.NotNil(t, hs[h.Serial], "a hop that was never put: %d", h.Serial)
	}
	for serial, v := range hs {
		if there[serial] != v.acknowledged && !slices.Contains(v.since, there[serial]) {
			t.Fatalf("version %d of hop %d is there; %d was acknowledged, %d were on their way", there[serial], serial, v.acknowledged, v.since)
		}
		v.acknowledged, v.since = there[serial], nil
		if v.acknowledged == 0 { // Its serial is not used again.
			delete(hs, serial)
		}
	}
}

// crash is the process. It says what it is about to do and what was acknowledged.
func crash() {
	var p plan
	must(json.Unmarshal([]byte(os.Getenv(planVar)), &p))
	var hits atomic.Int64
	boltstore.SetAt(func(point string) {
		if point == p.Point && hits.Add(1) == p.Hit {
			kill()
		}
	})
	boltstore.SetCompactFrom(128 << 10)
	old := make(chan *redirect.Hop, 200) // The others are not kept.
	s, err := boltstore.Open(boltstore.Options{Path: p.Path, Durability: p.Durability, Batch: 50, OnRecover: func(h *redirect.Hop) bool {
		select {
		case old <- h:
			return true
		default:
			say("begin", h.Serial, 0)
			return false
		}
	}})
	must(err)
	close(old)
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Go(func() {
			w := worker{p: &p, store: s, rnd: rand.New(rand.NewPCG(p.Seed, i))}
			for h := range old { // Each takes a part.
				w.live = append(w.live, h)
			}
			for n := 0; n < 400 || p.Lines > 0; n++ { // Who is killed from outside has no end of its own.
				w.step()
			}
			w.flush()
		})
	}
	wg.Wait()
	must(s.Close())
}

type worker struct {
	p     *plan
	store *boltstore.Store
	rnd   *rand.Rand
	live  []*redirect.Hop
	open  []uint64 // begun and not acknowledged
}

func (w *worker) step() {
	switch n := w.rnd.IntN(10); {
	case n < 5 && len(w.live) < 100 || len(w.live) == 0:
		h := hop(w.store.NewSerial(), 1)
		w.begin(h.Serial, 1)
		must(w.store.Put(h))
		w.live = append(w.live, h)
		w.kept(h.Serial)
	case n < 7:
		i := w.rnd.IntN(len(w.live))
		h := hop(w.live[i].Serial, w.live[i].FilterID+1)
		w.begin(h.Serial, h.FilterID)
		must(w.store.Replace(h))
		w.live[i] = h
		w.kept(h.Serial)
	case n < 9:
		i := w.rnd.IntN(len(w.live))
		w.begin(w.live[i].Serial, 0)
		must(w.store.Release(w.live[i].Serial))
		w.live[i] = w.live[len(w.live)-1]
		w.live = w.live[:len(w.live)-1]
	default:
		w.flush()
	}
}

func (w *worker) begin(serial, version uint64) {
	say("begin", serial, version)
	w.open = append(w.open, serial)
}

// kept is after Put or Replace, which have acknowledged if they waited.
func (w *worker) kept(serial uint64) {
	if w.p.Durability == boltstore.Sync {
		say("end", serial, 0)
	}
}

func (w *worker) flush() {
	must(w.store.Flush(context.Background()))
	for _, serial := range w.open {
		say("end", serial, 0)
	}
	w.open = w.open[:0]
}

// say writes a line at once, whole.
func say(kind string, serial, version uint64) {
	_, err := io.WriteString(os.Stdout, fmt.Sprintln(kind, serial, version))
	must(err)
}

func kill() {
	p, err := os.FindProcess(os.Getpid())
	must(err)
	must(p.Kill())
	select {}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
