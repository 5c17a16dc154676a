package host_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// BFE-TXN-04: 8 goroutines classify while 1,000 transactions replace two filters
// that belong together, one in each of two sublayers. Whoever sees the one of
// transaction n sees the other of n; a swap in two steps shows them apart.
func TestNoReaderSeesHalfATransaction(t *testing.T) {
	const readers, transactions = 8, 1000
	e := host.New(host.Options{})
	s := open(t, e, host.SessionOptions{})
	declare(t, s, "continues")
	register(t, e, "continues", fwps.CalloutFunc(func(context.Context, *fwps.Call, *fwps.Verdict) error { return nil }))
	subs := []fwpm.SublayerID{"high", "low"}
	for i, id := range subs {
		_, err := s.SublayerAdd(fwpm.Sublayer{ID: id, Name: string(id), Weight: uint16(2 - i)})
		require.NoError(t, err)
	}
	pair := func(n int) (fs []fwpm.Filter) {
		for _, sub := range subs {
			f := calling("continues")
			f.Name, f.Sublayer = strconv.Itoa(n), sub
			fs = append(fs, f)
		}
		return fs
	}
	// Half of the transactions are a session's, half are Update's.
	replace := func(n int) error {
		if n%2 == 0 {
			return e.Update(func(p *fwpm.Policy) error {
				p.Filters = nil
				for i, f := range pair(n) {
					f.ID = fwpm.FilterID(10*n + i + 1)
					p.Filters = append(p.Filters, f)
				}
				return nil
			})
		}
		if err := s.Begin(0); err != nil {
			return err
		}
		for _, f := range e.Policy().Filters {
			if err := s.FilterDelete(f.ID); err != nil {
				return err
			}
		}
		for _, f := range pair(n) {
			if _, err := s.FilterAdd(f); err != nil {
				return err
			}
		}
		return s.Commit()
	}
	require.NoError(t, replace(0))

	var done atomic.Bool
	var seen atomic.Int64
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			in, d, last := incoming(layer), new(fwps.Decision), -1
			for classified := 0; !done.Load() || classified == 0; classified++ {
				e.Classify(context.Background(), &in, d)
				n, problem := torn(d)
				if problem == "" && n < last {
					problem = fmt.Sprintf("transaction %d after %d", n, last)
				}
				if problem != "" {
					t.Error(problem)
					return
				}
				if n != last {
					seen.Add(1)
				}
				last = n
			}
		})
	}
	n := 0
	for !t.Failed() && (n < transactions || seen.Load() <= readers) { // Until readers ran while the policy changed.
		n++
		if err := replace(n); err != nil {
			t.Errorf("transaction %d: %v", n, err)
		}
	}
	done.Store(true)
	wg.Wait()
	require.Equal(t, strconv.Itoa(n), names(e)[0])
}

// torn is the transaction whose filters a classification saw, and what is wrong
// with what it saw.
func torn(d *fwps.Decision) (transaction int, problem string) {
	if len(d.Steps) != 2 {
		return 0, fmt.Sprintf("saw %d filters, not two", len(d.Steps))
	}
	if a, b := d.Steps[0].Name, d.Steps[1].Name; a != b {
		return 0, fmt.Sprintf("saw filters of the transactions %s and %s", a, b)
	}
	transaction, _ = strconv.Atoi(d.Steps[0].Name)
	return transaction, ""
}

// Everything at once: sessions that come and go, registrations, subscriptions,
// enumerations and handles, while others classify. What is left must be nothing.
func TestHammer(t *testing.T) {
	e := host.New(host.Options{ReauthorizeOnHandleDestroy: true})
	require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Callouts = []fwpm.Callout{{ID: "c"}}; return nil }))
	const rounds = 300
	work := []func(i int) error{
		func(int) error {
			s, err := e.Open(host.SessionOptions{Dynamic: true})
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = s.FilterAdd(calling("c"))
			return err
		},
		func(i int) error {
			s, err := e.Open(host.SessionOptions{})
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Begin(0); err != nil {
				return err
			}
			id, err := s.FilterAdd(filter("f", block))
			if err != nil || i%3 == 0 {
				return err
			}
			if err := s.FilterDelete(id); err != nil {
				return err
			}
			return s.Commit()
		},
		func(int) error {
			_, unregister, err := e.RegisterCallout("c", new(committedQuiet))
			if err != nil {
				return err
			}
			return unregister()
		},
		func(int) error {
			s, err := e.Open(host.SessionOptions{})
			if err != nil {
				return err
			}
			defer s.Close()
			unsubscribe, err := s.SubscribeChanges(fwpm.Subscription{Kind: fwpm.KindFilter, NotifyOnAdd: true, NotifyOnDelete: true}, func(fwpm.Change) {})
			if err != nil {
				return err
			}
			defer unsubscribe()
			if _, err := s.NetEventSubscribe(func(fwpm.NetEvent) {}); err != nil {
				return err
			}
			h, err := s.FilterCreateEnumHandle(nil)
			if err != nil {
				return err
			}
			_, err = h.Next(10)
			return err
		},
		func(int) error {
			h, err := e.RedirectHandleCreate("p", 0)
			e.RedirectHandleDestroy(h)
			return err
		},
		func(int) error {
			return e.Update(func(p *fwpm.Policy) error { p.Callouts[0].Name += "x"; return nil })
		},
		func(int) error {
			in, d := incoming(layer), new(fwps.Decision)
			for range 50 {
				e.Classify(context.Background(), &in, d)
			}
			e.Generation(layer)
			e.LayerStatistics(layer)
			return nil
		},
	}
	var wg sync.WaitGroup
	for at, f := range work {
		wg.Go(func() {
			for i := range rounds {
				if err := f(i); err != nil {
					t.Errorf("worker %d, round %d: %v", at, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Empty(t, names(e))
	require.Len(t, e.Policy().Callouts[0].Name, rounds)
}

// committedQuiet hears of filters and says nothing.
type committedQuiet struct{}

func (*committedQuiet) Classify(context.Context, *fwps.Call, *fwps.Verdict) error { return nil }
func (*committedQuiet) Notify(fwps.NotifyType, *fwpm.Filter) error                { return nil }
func (*committedQuiet) EnableCommitAddNotify()                                    {}
