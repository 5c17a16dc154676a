package host_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
)

func TestSessions(t *testing.T) {
	t.Run("BFE-SES-01 two sessions cannot have one key; without one a session gets its own", func(t *testing.T) {
		e := host.New(host.Options{})
		a := open(t, e, host.SessionOptions{Key: "k"})
		_, err := e.Open(host.SessionOptions{Key: "k"})
		require.ErrorIs(t, err, fwp.ErrAlreadyExists)
		require.EqualError(t, err, "session k: an object with this key exists already")
		b, c := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		require.NotEqual(t, b.Key(), c.Key())
		require.Regexp(t, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, b.Key())
		a.Close()
		a.Close()
		open(t, e, host.SessionOptions{Key: "k"})
		_, err = e.Open(host.SessionOptions{TxnWaitTimeout: -1})
		require.ErrorIs(t, err, fwp.ErrInvalidParameter)
	})
	t.Run("a session that has ended answers so", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{})
		s.Close()
		for name, call := range map[string]func() error{
			"Begin": func() error { return s.Begin(0) }, "Commit": s.Commit, "Abort": s.Abort,
			"FilterAdd":        func() error { _, err := s.FilterAdd(filter("f", block)); return err },
			"SublayerDelete":   func() error { return s.SublayerDelete("x") },
			"enumerate":        func() error { _, err := s.SublayerCreateEnumHandle(fwpm.EnumTemplate{}); return err },
			"sessions":         func() error { _, err := s.SessionCreateEnumHandle(); return err },
			"layers":           func() error { _, err := s.LayerCreateEnumHandle(); return err },
			"SetOption":        func() error { return s.SetOption(fwpm.EngineCollectNetEvents, 1) },
			"GetOption":        func() error { _, err := s.GetOption(fwpm.EngineCollectNetEvents); return err },
			"net events":       func() error { _, err := s.NetEventSubscribe(func(fwpm.NetEvent) {}); return err },
			"wrong net events": func() error { _, err := s.NetEventSubscribe(nil); return err },
			"wrong changes":    func() error { _, err := s.SubscribeChanges(fwpm.Subscription{}, nil); return err },
			"changes": func() error {
				_, err := s.SubscribeChanges(fwpm.Subscription{Kind: fwpm.KindFilter, NotifyOnAdd: true}, func(fwpm.Change) {})
				return err
			},
		} {
			require.ErrorIs(t, call(), fwp.ErrSessionAborted, name)
		}
	})
	t.Run("BFE-OBJ-02 SC-109 the objects of a dynamic session go with it, all at once", func(t *testing.T) {
		e := host.New(host.Options{})
		s, other := open(t, e, host.SessionOptions{Dynamic: true}), open(t, e, host.SessionOptions{})
		add(t, other, filter("static", permit))
		_, err := s.SublayerAdd(fwpm.Sublayer{ID: "sub", Name: "sub", Weight: 1})
		require.NoError(t, err)
		f := filter("dynamic", block)
		f.Sublayer = "sub"
		add(t, s, f)
		require.Equal(t, block, decide(t, e).Action)
		before := e.Generation(layer)
		s.Close()
		require.Equal(t, permit, decide(t, e).Action)
		require.Equal(t, []string{"static"}, names(e))
		require.Empty(t, e.Policy().Sublayers)
		require.NotEqual(t, before, e.Generation(layer), "flows are authorized again")
	})
	t.Run("BFE-SES-02 closing aborts the transaction first", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{Dynamic: true})
		add(t, s, filter("committed", block))
		require.NoError(t, s.Begin(0))
		add(t, s, filter("never", block))
		s.Close()
		require.Empty(t, names(e))
		require.NoError(t, open(t, e, host.SessionOptions{}).Begin(0), "the lock is free")
	})
}

// The clock of these is the bubble's: it moves when everybody waits.
func TestTransactionLock(t *testing.T) {
	t.Run("BFE-TXN-03 a transaction waits 15 seconds for the one under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			a, b := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
			require.NoError(t, a.Begin(0))
			start := time.Now()
			require.ErrorIs(t, b.Begin(0), fwp.ErrTimeout)
			require.Equal(t, 15*time.Second, time.Since(start))
			_, err := b.FilterAdd(filter("implicit", block)) // BFE-TXN-02
			require.ErrorIs(t, err, fwp.ErrTimeout)
			require.ErrorIs(t, e.Update(func(*fwpm.Policy) error { return nil }), fwp.ErrTimeout)
			require.Equal(t, 45*time.Second, time.Since(start))
		})
	})
	t.Run("BFE-SES-01 or as long as the session says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			a, b := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{TxnWaitTimeout: time.Minute})
			require.NoError(t, a.Begin(0))
			go func() { time.Sleep(40 * time.Second); a.Commit() }()
			start := time.Now()
			require.NoError(t, b.Begin(0))
			require.Equal(t, 40*time.Second, time.Since(start))
			require.NoError(t, b.Abort())
		})
	})
	t.Run("BFE-TXN-03 a lock held for an hour is taken away", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			a, b := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{TxnWaitTimeout: 2 * time.Hour})
			require.NoError(t, a.Begin(0))
			add(t, a, filter("lost", block))
			start := time.Now()
			require.NoError(t, b.Begin(0))
			require.Equal(t, time.Hour, time.Since(start))
			_, err := a.FilterAdd(filter("late", block))
			require.ErrorIs(t, err, fwp.ErrTxnAborted, "the next call in it")
			require.ErrorIs(t, a.Commit(), fwp.ErrNoTxnInProgress, "and then it is over")
			require.NoError(t, b.Commit())
			require.Empty(t, names(e))
			add(t, a, filter("anew", block))
		})
	})
	t.Run("BFE-TXN-03 but not during a call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			a, b := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{TxnWaitTimeout: 9 * time.Hour})
			declare(t, a, "slow")
			register(t, e, "slow", &noted{during: func() { time.Sleep(2 * time.Hour) }})
			require.NoError(t, a.Begin(0))
			start, got := time.Now(), make(chan time.Duration)
			go func() {
				assert.NoError(t, b.Begin(0))
				got <- time.Since(start)
			}()
			add(t, a, calling("slow"))
			require.Equal(t, 2*time.Hour, <-got)
			require.ErrorIs(t, a.Commit(), fwp.ErrTxnAborted)
		})
	})
	t.Run("BFE-TXN-03 also if nobody waits for it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			a := open(t, e, host.SessionOptions{})
			require.NoError(t, a.Begin(0))
			time.Sleep(time.Hour)
			require.ErrorIs(t, a.Commit(), fwp.ErrTxnAborted)
			require.NoError(t, a.Begin(0))
			time.Sleep(time.Hour - time.Nanosecond)
			require.NoError(t, a.Commit())
		})
	})
	t.Run("BFE-TXN-03 a kernel caller holds it as long as it likes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			k, b := open(t, e, host.SessionOptions{KernelMode: true}), open(t, e, host.SessionOptions{})
			require.NoError(t, k.Begin(0))
			time.Sleep(100 * time.Hour)
			require.ErrorIs(t, b.Begin(0), fwp.ErrTimeout)
			require.NoError(t, k.Commit())
		})
	})
	t.Run("closing a session ends its waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			a, b := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
			require.NoError(t, a.Begin(0))
			got := make(chan error)
			go func() { got <- b.Begin(0) }()
			synctest.Wait()
			b.Close()
			require.ErrorIs(t, <-got, fwp.ErrSessionAborted)
		})
	})
	t.Run("objects of a session that closes while the lock is held go when it is given back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			d, a := open(t, e, host.SessionOptions{Dynamic: true, TxnWaitTimeout: time.Second}), open(t, e, host.SessionOptions{})
			add(t, d, filter("dynamic", block))
			require.NoError(t, a.Begin(0))
			add(t, a, filter("static", permit))
			start := time.Now()
			d.Close()
			require.Equal(t, time.Second, time.Since(start), "no longer than the session's timeout")
			require.Equal(t, []string{"dynamic"}, names(e))
			require.NoError(t, a.Commit())
			require.Equal(t, []string{"static"}, names(e))
		})
	})
	t.Run("also when the lock was held too long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			d, a := open(t, e, host.SessionOptions{Dynamic: true, TxnWaitTimeout: time.Second}), open(t, e, host.SessionOptions{})
			add(t, d, filter("dynamic", block))
			require.NoError(t, a.Begin(0))
			d.Close()
			time.Sleep(time.Hour)
			require.ErrorIs(t, a.Commit(), fwp.ErrTxnAborted)
			require.Empty(t, names(e))
			require.NoError(t, a.Begin(0), "nobody has the lock")
		})
	})
	t.Run("a session that closes waits for the lock, and then its objects are gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			d, a := open(t, e, host.SessionOptions{Dynamic: true}), open(t, e, host.SessionOptions{})
			add(t, d, filter("dynamic", block))
			require.NoError(t, a.Begin(0))
			go func() { time.Sleep(5 * time.Second); a.Abort() }()
			d.Close()
			require.Empty(t, names(e))
		})
	})
	t.Run("the clock can be another one", func(t *testing.T) {
		now := time.Unix(1_000_000, 0)
		after := func(d time.Duration) <-chan time.Time {
			now = now.Add(d)
			c := make(chan time.Time, 1)
			c <- now
			return c
		}
		e := host.New(host.Options{Now: func() time.Time { return now }, After: after})
		a, b := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		require.NoError(t, a.Begin(0))
		require.ErrorIs(t, b.Begin(0), fwp.ErrTimeout)
		require.Equal(t, int64(1_000_015), now.Unix())
		now = now.Add(time.Hour)
		require.NoError(t, b.Begin(0))
		require.ErrorIs(t, a.Commit(), fwp.ErrTxnAborted)
	})
}

func TestTransactions(t *testing.T) {
	t.Run("BFE-TXN-01 one transaction a session", func(t *testing.T) {
		s := open(t, host.New(host.Options{}), host.SessionOptions{Key: "k"})
		require.ErrorIs(t, s.Commit(), fwp.ErrNoTxnInProgress)
		require.ErrorIs(t, s.Abort(), fwp.ErrNoTxnInProgress)
		require.NoError(t, s.Begin(0))
		err := s.Begin(0)
		require.ErrorIs(t, err, fwp.ErrTxnInProgress)
		var o *fwpm.ObjectError
		require.True(t, errors.As(err, &o))
		require.Equal(t, "session k: a transaction is in progress already", o.Error())
		require.NoError(t, s.Abort())
		require.ErrorIs(t, s.Begin(2), fwp.ErrInvalidFlags)
	})
	t.Run("BFE-TXN-02 a read-only transaction changes nothing, waits for nobody and sees one state", func(t *testing.T) {
		e := host.New(host.Options{})
		w, r := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		require.NoError(t, w.Begin(0))
		require.NoError(t, r.Begin(host.TxnReadOnly))
		_, err := r.FilterAdd(filter("f", block))
		require.ErrorIs(t, err, fwp.ErrIncompatibleTxn)
		require.ErrorIs(t, r.FilterDelete(1), fwp.ErrIncompatibleTxn)
		add(t, w, filter("f", block))
		require.NoError(t, w.Commit())
		require.Empty(t, filters(t, r, nil))
		require.NoError(t, r.Commit())
		require.Len(t, filters(t, r, nil), 1)
	})
	t.Run("BFE-TXN-04 SC-110 a call that fails does not spoil the others; all go live at once", func(t *testing.T) {
		e := host.New(host.Options{})
		s, other := open(t, e, host.SessionOptions{}), open(t, e, host.SessionOptions{})
		require.NoError(t, s.Begin(0))
		for _, name := range []string{"1", "2", "", "4"} {
			_, err := s.FilterAdd(filter(name, block))
			if name == "" {
				require.ErrorIs(t, err, fwp.ErrNullDisplayName)
			} else {
				require.NoError(t, err)
			}
		}
		require.Len(t, filters(t, s, nil), 3, "the transaction sees its own")
		require.Empty(t, filters(t, other, nil), "nobody else does")
		require.Equal(t, permit, decide(t, e).Action)
		require.NoError(t, s.Commit())
		require.Equal(t, block, decide(t, e).Action)
		require.Equal(t, []string{"1", "2", "4"}, names(e))
	})
	t.Run("an aborted transaction leaves nothing", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		kept := add(t, s, filter("kept", permit))
		before := e.Generation(layer)
		require.NoError(t, s.Begin(0))
		lost := add(t, s, filter("lost", block))
		require.NoError(t, s.FilterDelete(kept))
		require.NoError(t, s.Abort())
		require.Equal(t, []string{"kept"}, names(e))
		require.Equal(t, before, e.Generation(layer))
		require.Greater(t, add(t, s, filter("next", permit)), lost, "an identifier is not used again")
	})
	t.Run("BFE-TXN-05 options are no part of a transaction, nor of a dynamic session", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		require.NoError(t, s.Begin(0))
		require.ErrorIs(t, s.SetOption(fwpm.EngineCollectNetEvents, 0), fwp.ErrTxnInProgress)
		require.NoError(t, s.Abort())
		require.NoError(t, s.SetOption(fwpm.EngineCollectNetEvents, 0))
		v, err := s.GetOption(fwpm.EngineCollectNetEvents)
		require.NoError(t, err)
		require.Zero(t, v)
		for option, value := range map[fwpm.EngineOption]uint32{fwpm.EngineCollectNetEvents: 2, fwpm.EngineNetEventMatchAnyKeywords: 0x40, 5: 1} {
			require.ErrorIs(t, s.SetOption(option, value), fwp.ErrInvalidParameter)
		}
		_, err = s.GetOption(5)
		require.ErrorIs(t, err, fwp.ErrInvalidParameter)
		require.ErrorIs(t, open(t, e, host.SessionOptions{Dynamic: true}).SetOption(fwpm.EngineCollectNetEvents, 1), fwp.ErrDynamicSessionInProgress)
	})
	t.Run("a change that panics gives the lock back", func(t *testing.T) {
		e := host.New(host.Options{})
		require.Panics(t, func() { _ = e.Update(func(*fwpm.Policy) error { panic("x") }) })
		require.NoError(t, e.Update(func(*fwpm.Policy) error { return nil }))
	})
}

// filters lists what an enumeration gives.
func filters(t *testing.T, s *host.Session, tmpl *fwpm.FilterEnumTemplate) []fwpm.Filter {
	t.Helper()
	h, err := s.FilterCreateEnumHandle(tmpl)
	require.NoError(t, err)
	out, err := h.Next(1 << 20)
	require.NoError(t, err)
	return out
}
