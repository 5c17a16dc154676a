package guest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBreakerCountsFailuresOfTenSeconds(t *testing.T) {
	at := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		seconds []int
		trips   bool
	}{
		"five at once":            {[]int{0, 0, 0, 0, 0}, true},
		"four":                    {[]int{0, 0, 0, 0}, false},
		"five in ten seconds":     {[]int{0, 2, 4, 6, 10}, true},
		"five in eleven":          {[]int{0, 2, 4, 6, 11}, false},
		"the first are forgotten": {[]int{0, 1, 20, 21, 22, 23, 24}, true},
		"slow ones for ever":      {[]int{0, 3, 6, 9, 12, 15, 18, 21, 24}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := breaker{last: make([]time.Time, breakerFailures)}
			tripped := false
			for _, s := range c.seconds {
				tripped = b.fail(at.Add(time.Duration(s) * time.Second))
			}
			assert.Equal(t, c.trips, tripped)
			b.reset()
			assert.False(t, b.fail(at), "forgotten")
		})
	}
	assert.False(t, new(breaker).fail(at), "never")
}

func TestStoreIsBounded(t *testing.T) {
	s := new(store)
	key := func(n int) []byte { return []byte{byte(n), byte(n >> 8), 1} }
	for n := range maxEntries {
		assert.Zero(t, s.set(key(n), nil, 0))
	}
	assert.EqualValues(t, -5, s.set([]byte("one more"), nil, 0))
	assert.Zero(t, s.set(key(7), []byte("instead"), 0), "in place of another")
	assert.Zero(t, s.del(key(8)))
	assert.Zero(t, s.set([]byte("one more"), nil, 0))

	s = new(store)
	big := make([]byte, maxValue)
	var code int64
	for n := 0; code == 0; n++ {
		code = s.set(key(n), big, 0)
	}
	assert.EqualValues(t, -5, code)
	assert.LessOrEqual(t, s.stored, maxStored)
}

func TestStoreForgets(t *testing.T) {
	s := new(store)
	assert.Zero(t, s.set([]byte("k"), []byte("v"), 1))
	buf := make([]byte, 8)
	assert.EqualValues(t, 1, s.get([]byte("k"), buf))
	e := s.entries["k"]
	e.until = time.Now().Add(-time.Second)
	s.entries["k"], s.next = e, e.until
	assert.EqualValues(t, -3, s.get([]byte("k"), buf))
	s.sweep()
	assert.Empty(t, s.entries)
	assert.Zero(t, s.stored)
}

// A store without room says so at once: the budget of a decision is ten thousand calls,
// each of which would look at all entries, under a lock that every instance waits for.
func TestAFullStoreIsNotSearched(t *testing.T) {
	s := new(store)
	key := func(n int) []byte { return []byte{byte(n), byte(n >> 8), 1} }
	for n := range maxEntries {
		assert.Zero(t, s.set(key(n), nil, 3600))
	}
	e := s.entries[string(key(7))]
	e.until = time.Now().Add(-time.Second)
	s.entries[string(key(7))] = e
	assert.EqualValues(t, -5, s.set([]byte("one more"), nil, 0), "who searches finds what is over")
	s.next = e.until
	assert.Zero(t, s.set([]byte("one more"), nil, 0), "in place of what is over")
	assert.Len(t, s.entries, maxEntries)
	assert.True(t, s.next.After(time.Now()))
}

func TestMetricsAreBounded(t *testing.T) {
	m := new(metrics)
	name := func(kind byte, n int) []byte { return []byte{kind, byte('0' + n)} }
	for n := range maxMetrics {
		assert.Zero(t, m.add(name('a', n), 1, 1))
	}
	m.live.Store(1)
	assert.EqualValues(t, -5, m.add([]byte("one more"), 1, 1))
	assert.Zero(t, m.add(name('a', 0), 2, 1))
	assert.EqualValues(t, 3, m.read()["a0"])

	// Of two versions after it, one is live and one starts.
	assert.EqualValues(t, -5, m.add(name('b', 0), 1, 3), "it may never be live")
	m.live.Store(2)
	assert.EqualValues(t, -5, m.add(name('b', 0), 1, 3))
	assert.EqualValues(t, -5, m.add([]byte("late"), 1, 1), "a decision that began on what was live takes no place")
	for n := range maxMetrics / 2 {
		assert.Zero(t, m.add(name('a', n), 1, 2))
	}
	m.live.Store(3)
	assert.Zero(t, m.add(name('a', 0), 1, 3))
	for n := range maxMetrics / 2 {
		assert.Zero(t, m.add(name('b', n), 1, 3))
	}
	figures := m.read()
	assert.Len(t, figures, maxMetrics)
	assert.EqualValues(t, 5, figures["a0"])
	for n := range maxMetrics / 2 {
		assert.Contains(t, figures, string(name('a', n)), "the oldest version's went first")
		assert.Contains(t, figures, string(name('b', n)))
	}
	assert.Zero(t, m.add(name('a', 1), 1, 2), "late, but it is there")
	for n := range maxMetrics/2 - 1 { // but a0, which is used
		assert.Zero(t, m.add(name('c', n), 1, 3))
	}
	assert.EqualValues(t, -5, m.add([]byte("one more"), 1, 3), "all are used")
	assert.EqualValues(t, 5, m.read()["a0"])
}
