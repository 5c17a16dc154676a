package guest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
)

// A guest may say that its answers are cacheable whatever it asks the host. It is
// believed where that depends on the request and the configuration alone.
func TestAnAnswerByTheHostsWordIsNotCacheable(t *testing.T) {
	o := full()
	m := load(t, "cacheable", o)
	for port, c := range map[uint16]struct {
		asks      string
		cacheable bool
	}{1: {"nothing", true}, 2: {"cidr_match", true}, 3: {"table_lookup", true}, 4: {"log", false}, 5: {"random", false}, 6: {"wall", false},
		7: {"kv_get", false}, 8: {"metric_add", false}, 9: {"dns_names", false}, 10: {"clock_time_get", false}, 11: {"random_get", false}} {
		v, err := ask(m, call(port))
		require.NoError(t, err)
		require.Equal(t, c.cacheable, v.Cacheable, c.asks)
	}
	v, err := ask(m, call(1))
	require.NoError(t, err)
	require.True(t, v.Cacheable, "what was asked for another request does not count")
}

// Whether the time, the connection's number and what a guest remembers matter to an
// answer that it calls cacheable is not looked at where time is short, but wherever
// decisions are tried out.
func TestTriedOutAGuestMustMeanThatItsAnswerIsCacheable(t *testing.T) {
	for _, triesOut := range []bool{false, true} {
		o := full()
		o.TriesOut = triesOut
		m := load(t, "cacheable", o)
		for port, steady := range map[uint16]bool{1: true, 2: true, 5: true, 12: false, 13: false, 14: false, 15: false} {
			_, err := ask(m, call(port))
			if steady || !triesOut {
				require.NoError(t, err, "port %d", port)
				continue
			}
			require.ErrorContains(t, err, "says that its answer is cacheable", "port %d", port)
		}
	}
}

// What a guest answered does not count any more when it is loaded anew, hears of
// another filter, is put in quarantine or is closed.
func TestAnAnswerEndsWithTheGuest(t *testing.T) {
	o := full()
	o.MaxFailures = 2
	m := load(t, "cacheable", o)
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"reload", func() { require.NoError(t, m.Reload(t.Context(), wasm(t, "cacheable"), nil)) }},
		{"filter", func() { require.NoError(t, m.Notify(fwps.NotifyAddFilter, &fwpm.Filter{ID: 1})) }},
		{"quarantine", func() {
			for range o.MaxFailures {
				_, err := ask(m, call(99))
				require.Error(t, err)
			}
		}},
	} {
		v, err := ask(m, call(1))
		require.NoError(t, err)
		require.False(t, v.Since.Over(), c.name)
		c.do()
		require.True(t, v.Since.Over(), c.name)
	}
	require.NoError(t, m.Reload(t.Context(), wasm(t, "cacheable"), nil))
	v, err := ask(m, call(1))
	require.NoError(t, err)
	require.NoError(t, m.Close(t.Context()))
	require.True(t, v.Since.Over(), "closed")
}
