package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyrun"
)

// A length is a number of decisions or a time.
type length struct {
	decisions uint64
	time      time.Duration
}

func parseLength(s string) (l length, err error) {
	if s == "" {
		return l, nil
	}
	if l.decisions, err = strconv.ParseUint(s, 10, 64); err == nil && l.decisions > 0 {
		return l, nil
	}
	if l.time, err = time.ParseDuration(s); err == nil && l.time > 0 {
		return length{time: l.time}, nil
	}
	return l, fmt.Errorf("--soak %q: expected a number of decisions or a time, such as 10000000 or 10m", s)
}

// done is how much of it is over, from 0 to 1.
func (l length) done(n uint64, t time.Duration) float64 {
	if l.decisions > 0 {
		return float64(n) / float64(l.decisions)
	}
	return float64(t) / float64(l.time)
}

// whole is what a bar has to reach.
func (l length) whole() int64 { return max(int64(min(l.decisions, math.MaxInt64)), int64(l.time)) }

// A sample is the memory at a time, in bytes.
type sample struct {
	at               time.Duration
	rss, heap, guest uint64 // rss is 0 where the system does not tell
}

// soakReloads is how often every callout is loaded anew, soakSamples how often
// memory is looked at.
const (
	soakReloads = 100
	soakSamples = 400
)

// A soak is the run of one.
type soak struct {
	p       *policyrun.Policy
	x       *mix
	length  length
	began   time.Time
	n       uint64
	samples []sample
	reloads int
	reload  chan struct{} // asks for one
	failed  chan error    // of the reloads, when they have ended
	bar     *progress
	ended   <-chan struct{} // when somebody has seen enough
}

type soakResult struct {
	Policy    string  `json:"policy"`
	Decisions uint64  `json:"decisions"`
	Seconds   float64 `json:"seconds"`
	Reloads   int     `json:"reloads"`
	Failures  uint64  `json:"failures"`
	// Medians of the second and of the last quarter, in MiB.
	RSS   [2]float64 `json:"rss_mib"`
	Heap  [2]float64 `json:"heap_mib"`
	Guest [2]float64 `json:"guest_mib"`
	Flat  bool       `json:"flat"`
	// Interrupted: it was not as long as it should have been.
	Interrupted bool   `json:"interrupted,omitempty"`
	Plot        string `json:"plot"`
}

func (o *benchOptions) runSoak(cmd *cobra.Command, policy string, p *policyrun.Policy, x *mix, l length) error {
	interrupt, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &soak{p: p, x: x, length: l, began: time.Now(), reload: make(chan struct{}, 1), failed: make(chan error, 1),
		bar: newProgress(cmd.ErrOrStderr(), l.whole(), "decisions"), ended: interrupt.Done()}
	go s.reloading(cmd.Context())
	s.decide(cmd.Context())
	s.bar.end()
	close(s.reload)
	if err := <-s.failed; err != nil {
		return err
	}
	r := s.result()
	r.Policy, r.Plot, r.Interrupted = policy, o.plot, interrupt.Err() != nil
	var b bytes.Buffer
	if err := drawMemory(&b, r, s.samples); err != nil {
		return err
	}
	if err := os.WriteFile(o.plot, b.Bytes(), 0o666); err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	if err := o.writeSoak(cmd, r); err != nil {
		return err
	}
	switch {
	case !r.Flat || r.Failures > 0:
		return exitCode(codeNo)
	case r.Interrupted: // A gate has not been passed.
		return exitCode(codeSignalled + int(syscall.SIGINT))
	}
	return nil
}

// decide decides until the end, or until it is interrupted, and asks for reloads on its way.
func (s *soak) decide(ctx context.Context) {
	var d fwps.Decision
	next, due := 0, 1
	for {
		for k := range s.x.asked {
			s.p.Engine.Classify(ctx, &s.x.asked[k], &d)
		}
		s.n += uint64(len(s.x.asked))
		done := s.length.done(s.n, time.Since(s.began))
		if done*soakSamples >= float64(next) {
			s.samples = append(s.samples, s.look())
			next++
		}
		if done*soakReloads >= float64(due) {
			select {
			case s.reload <- struct{}{}:
				due++
			default: // One waits for the one before.
			}
		}
		s.bar.at(int64(done*float64(s.length.whole())), int(s.n))
		select {
		case <-s.ended:
			return
		default:
		}
		if done >= 1 {
			return
		}
	}
}

// reloading loads every callout anew when it is asked to, while decisions run.
func (s *soak) reloading(ctx context.Context) {
	var errs []error
	for range s.reload {
		for id := range s.p.Modules {
			if err := s.p.ReloadCallout(ctx, id); err != nil {
				errs = append(errs, err)
			}
		}
		s.reloads++
	}
	s.failed <- errors.Join(errs...)
}

// What the last collection left: garbage that waits for the next is no growth.
var heapMetric = []metrics.Sample{{Name: "/gc/heap/live:bytes"}}

func (s *soak) look() sample {
	metrics.Read(heapMetric)
	at := sample{at: time.Since(s.began), rss: residentSet(), heap: heapMetric[0].Value.Uint64()}
	for _, m := range s.p.Modules {
		at.guest += m.Stats().Memory
	}
	return at
}

// residentSet is what the process has of the machine's memory, 0 where the system
// does not say.
func residentSet() uint64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	words := strings.Fields(string(b))
	if len(words) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(words[1], 10, 64) // 0 says that it is not known
	return pages * uint64(os.Getpagesize())
}

func (s *soak) result() *soakResult {
	r := &soakResult{Decisions: s.n, Seconds: time.Since(s.began).Seconds(), Reloads: s.reloads}
	for _, st := range stats(s.p) {
		r.Failures += st.Failures
	}
	quarters := func(of func(sample) uint64) [2]float64 {
		n := len(s.samples)
		mid := func(part []sample) float64 {
			var v []float64
			for _, x := range part {
				v = append(v, float64(of(x))/(1<<20))
			}
			return median(v)
		}
		return [2]float64{mid(s.samples[n/4 : n/2+1]), mid(s.samples[3*n/4:])}
	}
	r.RSS = quarters(func(x sample) uint64 { return x.rss })
	r.Heap = quarters(func(x sample) uint64 { return x.heap })
	r.Guest = quarters(func(x sample) uint64 { return x.guest })
	r.Flat = !slices.ContainsFunc([][2]float64{r.RSS, r.Heap, r.Guest}, grew)
	return r
}

// grew leaves room for what comes and goes: a tenth, or the memories of two
// instances that a reload is about to replace.
func grew(q [2]float64) bool {
	const twoInstances = 32
	return q[1] > q[0]*1.1 && q[1] > q[0]+twoInstances
}

func (o *benchOptions) writeSoak(cmd *cobra.Command, r *soakResult) error {
	if o.json {
		return encode(cmd.OutOrStdout(), r)
	}
	flat := "flat"
	if !r.Flat {
		flat = "growing"
	}
	interrupted := ""
	if r.Interrupted {
		interrupted = ", interrupted"
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), `%s: %d decisions in %.0f s, %d reloads, %d failures%s
memory is %s: MiB in the second and in the last quarter of the time
  process  %6.1f  %6.1f
  Go heap  %6.1f  %6.1f
  guests   %6.1f  %6.1f
%s shows it over time
`, r.Policy, r.Decisions, r.Seconds, r.Reloads, r.Failures, interrupted, flat, r.RSS[0], r.RSS[1], r.Heap[0], r.Heap[1], r.Guest[0], r.Guest[1], r.Plot)
	return err
}
