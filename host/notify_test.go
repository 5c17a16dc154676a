package host_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A noted callout writes down what it hears.
type noted struct {
	heard   []string
	refuse  error
	panics  bool
	context uint64 // left in filters
	seen    uint64 // found in the filter that asked
	during  func() // while it hears
}

func (n *noted) Classify(_ context.Context, c *fwps.Call, v *fwps.Verdict) error {
	n.seen = c.Filter.Context
	v.Action = permit
	return nil
}

func (n *noted) Notify(t fwps.NotifyType, f *fwpm.Filter) error {
	n.heard = append(n.heard, fmt.Sprintf("%s %d context=%d", [...]string{"add", "delete", "post-commit"}[t], f.ID, f.Context))
	if n.during != nil {
		n.during()
	}
	if n.panics {
		panic("boom")
	}
	if t == fwps.NotifyAddFilter && n.context != 0 {
		f.Context = n.context
		f.Action, f.Name = block, "not to be changed"
		clear(f.Conditions)
	}
	return n.refuse
}

func (n *noted) take() []string { h := n.heard; n.heard = nil; return h }

type committed struct{ noted }

func (*committed) EnableCommitAddNotify() {}

func TestNotifications(t *testing.T) {
	setup := func(t *testing.T, c fwps.Callout) (*host.Engine, *host.Session) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c", "other")
		register(t, e, "c", c)
		return e, s
	}
	t.Run("CO-NOT-01 a callout hears of filters that call it", func(t *testing.T) {
		n := new(noted)
		_, s := setup(t, n)
		id := add(t, s, calling("c"))
		add(t, s, calling("other"))
		add(t, s, filter("calls nobody", block))
		require.Equal(t, []string{"add 1 context=0"}, n.take())
		require.NoError(t, s.FilterDelete(id))
		require.Equal(t, []string{"delete 1 context=0"}, n.take())
	})
	t.Run("BFE-SES-02 and that a session ended in whose transaction they came", func(t *testing.T) {
		n := new(noted)
		e, s := setup(t, n)
		other := open(t, e, host.SessionOptions{})
		require.NoError(t, other.Begin(0))
		add(t, other, calling("c"))
		n.take()
		other.Close()
		require.Equal(t, []string{"delete 1 context=0"}, n.take())
		require.NoError(t, s.Begin(0), "nobody has the lock")
	})
	t.Run("CO-NOT-02 what a callout does to the conditions that it is shown is nothing to the filter", func(t *testing.T) {
		n := &noted{context: 7}
		e, s := setup(t, n)
		f := calling("c")
		f.Conditions = []fwpm.Condition{{Field: fwpm.ConditionIPRemotePort, Match: fwp.MatchEqual, Value: fwp.U16(443)}}
		add(t, s, f)
		require.Equal(t, f.Conditions, e.Policy().Filters[0].Conditions)
	})
	t.Run("CO-NOT-01 and of the commit if it wants to", func(t *testing.T) {
		c := new(committed)
		_, s := setup(t, c)
		require.NoError(t, s.Begin(0))
		add(t, s, calling("c"))
		require.Equal(t, []string{"add 1 context=0"}, c.take())
		require.NoError(t, s.Commit())
		require.Equal(t, []string{"post-commit 1 context=0"}, c.take())
	})
	t.Run("CO-NOT-02 what it leaves in a filter comes back", func(t *testing.T) {
		n := &noted{context: 77}
		e, s := setup(t, n)
		id := add(t, s, calling("c"))
		decide(t, e)
		require.EqualValues(t, 77, n.seen)
		require.Equal(t, permit, decide(t, e).Action)
		require.Equal(t, "calls c", decide(t, e).Decider().Name, "nothing else can be changed")
		require.EqualValues(t, 77, filters(t, s, nil)[0].Context)
		n.take()
		require.NoError(t, s.FilterDelete(id))
		require.Equal(t, []string{"delete 1 context=77"}, n.take())
	})
	t.Run("SC-111 CO-NOT-02 it may refuse a filter", func(t *testing.T) {
		no := errors.New("no room")
		n := &noted{refuse: no}
		e, s := setup(t, n)
		_, err := s.FilterAdd(calling("c"))
		require.ErrorIs(t, err, fwp.ErrCalloutNotificationFailed)
		require.ErrorIs(t, err, no)
		require.EqualError(t, err, "filter 1: callout: the callout refused the filter: no room")
		require.Empty(t, names(e))
		require.Equal(t, []string{"add 1 context=0"}, n.take(), "it does not hear that it is gone")
	})
	t.Run("CO-NOT-02 a panic is a refusal", func(t *testing.T) {
		e, s := setup(t, &noted{panics: true})
		_, err := s.FilterAdd(calling("c"))
		require.ErrorIs(t, err, fwp.ErrCalloutNotificationFailed)
		require.Empty(t, names(e))
	})
	t.Run("CO-NOT-02 one refusal is the end of an Update", func(t *testing.T) {
		n, willing := &noted{refuse: errors.New("no")}, new(noted)
		e, _ := setup(t, n)
		register(t, e, "other", willing)
		err := e.Update(func(p *fwpm.Policy) error {
			a, b := calling("c"), calling("other")
			a.ID, b.ID = 1, 2
			p.Filters = []fwpm.Filter{a, b}
			return nil
		})
		require.ErrorIs(t, err, fwp.ErrCalloutNotificationFailed)
		require.Empty(t, names(e))
		require.Equal(t, []string{"add 2 context=0", "delete 2 context=0"}, willing.take())
	})
	t.Run("a filter that Update leaves alone is not told of, a changed one is a new one", func(t *testing.T) {
		n := &noted{context: 5}
		e, s := setup(t, n)
		add(t, s, calling("c"))
		n.take()
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Sublayers = append(p.Sublayers, fwpm.Sublayer{ID: "s"}); return nil }))
		require.Empty(t, n.take())
		decide(t, e)
		require.EqualValues(t, 5, n.seen)
		n.context = 6
		require.NoError(t, e.Update(func(p *fwpm.Policy) error { p.Filters[0].Sublayer = "s"; return nil }))
		require.Equal(t, []string{"add 1 context=0", "delete 1 context=5"}, n.take())
		decide(t, e)
		require.EqualValues(t, 6, n.seen)
	})
	t.Run("a filter whose transaction is aborted is deleted", func(t *testing.T) {
		n := &noted{context: 7}
		_, s := setup(t, n)
		require.NoError(t, s.Begin(0))
		id := add(t, s, calling("c"))
		require.NoError(t, s.FilterDelete(id))
		add(t, s, calling("c"))
		require.NoError(t, s.Abort())
		require.Equal(t, []string{"add 1 context=0", "add 2 context=0", "delete 1 context=7", "delete 2 context=7"}, n.take())
	})
	t.Run("one that is added and deleted in a transaction too", func(t *testing.T) {
		n := new(committed)
		_, s := setup(t, n)
		require.NoError(t, s.Begin(0))
		id := add(t, s, calling("c"))
		require.NoError(t, s.FilterDelete(id))
		require.NoError(t, s.Commit())
		require.Equal(t, []string{"add 1 context=0", "delete 1 context=0"}, n.take())
	})
	t.Run("CO-NOT-03 CO-NOT-04 a filter that was there before is told of only when it goes", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c")
		first := &noted{context: 9}
		_, unregister := register(t, e, "c", first)
		id := add(t, s, calling("c"))
		require.NoError(t, unregister())
		second := new(committed)
		register(t, e, "c", second)
		decide(t, e)
		require.Zero(t, second.seen, "what the other registration left is not shown")
		require.Empty(t, second.take())
		require.NoError(t, s.FilterDelete(id))
		require.Equal(t, []string{"delete 1 context=0"}, second.take())
		require.Equal(t, []string{"add 1 context=0"}, first.take())
	})
	t.Run("CO-NOT-04 one that registers in between hears of no commit", func(t *testing.T) {
		e := host.New(host.Options{})
		s := open(t, e, host.SessionOptions{})
		declare(t, s, "c")
		require.NoError(t, s.Begin(0))
		add(t, s, calling("c"))
		c := new(committed)
		register(t, e, "c", c)
		require.NoError(t, s.Commit())
		require.Empty(t, c.take())
	})
	t.Run("results of the others do not count", func(t *testing.T) {
		n := new(committed)
		e, s := setup(t, n)
		require.NoError(t, s.Begin(0))
		id := add(t, s, calling("c"))
		n.refuse, n.panics = errors.New("too late"), true
		require.NoError(t, s.Commit())
		require.NoError(t, s.FilterDelete(id))
		require.Empty(t, names(e))
	})
	t.Run("after a commit the callout may use the engine", func(t *testing.T) {
		n := new(committed)
		e, s := setup(t, n)
		n.during = func() {
			if len(n.heard) == 2 { // post-commit
				_, err := s.SublayerAdd(fwpm.Sublayer{ID: "from a callout", Name: "n"})
				require.NoError(t, err)
			}
		}
		add(t, s, calling("c"))
		require.Len(t, e.Policy().Sublayers, 1)
	})
}

// BFE-TXN-03, CO-NOT-03: whichever call finds out that the transaction was taken away, the
// callouts hear of it before it returns.
func TestCalloutsHearOfATransactionThatWasTakenAway(t *testing.T) {
	calls := map[string]func(s *host.Session) error{
		"enumerate": func(s *host.Session) error { _, err := s.FilterCreateEnumHandle(nil); return err },
		"begin":     func(s *host.Session) error { return s.Begin(0) },
		"add":       func(s *host.Session) error { _, err := s.FilterAdd(filter("late", block)); return err },
		"commit":    (*host.Session).Commit,
	}
	for name, call := range calls {
		synctest.Test(t, func(t *testing.T) {
			e := host.New(host.Options{})
			s, c := open(t, e, host.SessionOptions{}), new(noted)
			declare(t, s, "c")
			register(t, e, "c", c)
			require.NoError(t, s.Begin(0))
			id := add(t, s, calling("c"))
			time.Sleep(time.Hour)
			c.take()
			require.ErrorIs(t, call(s), fwp.ErrTxnAborted, name)
			require.Equal(t, []string{fmt.Sprintf("delete %d context=0", id)}, c.take(), name)
		})
	}
}

// A %v in an embedder's log has the words of the headers.
func TestConstantsAreTold(t *testing.T) {
	require.Equal(t, "add-filter delete-filter add-filter-post-commit NotifyType(3)",
		fmt.Sprint(fwps.NotifyAddFilter, " ", fwps.NotifyDeleteFilter, " ", fwps.NotifyAddFilterPostCommit, " ", fwps.NotifyType(3)))
	require.Equal(t, "PROCESS_ID|ORIGINAL_DESTINATION", fmt.Sprint(fwpm.MetadataProcessID|fwpm.MetadataOriginalDestination))
	require.Equal(t, "POLICY_CHANGE|PROXY_HANDLE_CHANGED", fmt.Sprint(fwp.ReasonPolicyChange|fwp.ReasonProxyHandleChanged))
}
