package guest

import (
	"sync"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/sdk/abi"
)

// Limits of a callout's store.
const (
	maxKey     = 256
	maxValue   = 4096
	maxEntries = 4096
	maxStored  = 1 << 20 // bytes of keys and values
)

// A store holds what the instances of a callout keep together. It outlives
// their generations.
type store struct {
	mu      sync.RWMutex
	entries map[string]entry
	stored  int
	next    time.Time // nothing is over before; zero: nothing will be
}

type entry struct {
	value []byte
	until time.Time // zero: until it is deleted
}

func (e *entry) over(now time.Time) bool { return !e.until.IsZero() && now.After(e.until) }

// get copies a value to buf and returns its length.
func (s *store) get(key, buf []byte) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, found := s.entries[string(key)]
	switch {
	case !found || e.over(time.Now()):
		return abi.ErrNotFound
	case len(e.value) > len(buf):
		return abi.ErrTooLarge
	}
	return int64(copy(buf, e.value))
}

func (s *store) set(key, value []byte, ttl uint32) int64 {
	e := entry{value: append([]byte(nil), value...)}
	if ttl > 0 {
		e.until = time.Now().Add(time.Duration(ttl) * time.Second)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.room(key, value) {
		s.sweep()
		if !s.room(key, value) {
			return abi.ErrFull
		}
	}
	s.drop(string(key))
	if s.entries == nil {
		s.entries = map[string]entry{}
	}
	s.entries[string(key)] = e
	s.expires(e.until)
	s.stored += len(key) + len(value)
	return 0
}

// room reports whether a value fits in place of what the key has now.
func (s *store) room(key, value []byte) bool {
	n, stored := len(s.entries), s.stored+len(key)+len(value)
	if old, found := s.entries[string(key)]; found {
		n, stored = n-1, stored-len(key)-len(old.value)
	}
	return n < maxEntries && stored <= maxStored
}

// sweep deletes what is over. It looks at all entries only when one is: a guest may ask
// for room thousands of times in a decision.
func (s *store) sweep() {
	now := time.Now()
	if s.next.IsZero() || !now.After(s.next) {
		return
	}
	s.next = time.Time{}
	for k, e := range s.entries {
		if e.over(now) {
			s.drop(k)
		} else {
			s.expires(e.until)
		}
	}
}

// expires notes when something will be over.
func (s *store) expires(until time.Time) {
	if !until.IsZero() && (s.next.IsZero() || until.Before(s.next)) {
		s.next = until
	}
}

func (s *store) drop(key string) bool {
	e, found := s.entries[key]
	if found {
		s.stored -= len(key) + len(e.value)
		delete(s.entries, key)
	}
	return found
}

func (s *store) del(key []byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drop(string(key)) {
		return abi.ErrNotFound
	}
	return 0
}

// pair reads a key and, if there is one, a buffer.
func (i *instance) pair(mem api.Memory, s []uint64) (key, buf []byte, code int64) {
	key, inside := i.bytes(mem, s[0], s[1])
	if inside && len(s) >= 4 {
		buf, inside = i.bytes(mem, s[2], s[3])
	}
	switch {
	case !inside:
		return nil, nil, abi.ErrPointer
	case len(key) == 0 || len(key) > maxKey:
		return nil, nil, abi.ErrTooLarge
	}
	return key, buf, 0
}

func kvGet(i *instance, mem api.Memory, s []uint64) uint64 {
	key, buf, code := i.pair(mem, s[:4])
	if code != 0 {
		return failed(code)
	}
	return failed(i.store.get(key, buf))
}

func kvSet(i *instance, mem api.Memory, s []uint64) uint64 {
	key, value, code := i.pair(mem, s[:4])
	if code != 0 {
		return failed(code)
	}
	if len(value) > maxValue {
		return failed(abi.ErrTooLarge)
	}
	i.spendHost(callsPerEntry)
	return failed(i.store.set(key, value, uint32(s[4])))
}

func kvDel(i *instance, mem api.Memory, s []uint64) uint64 {
	key, _, code := i.pair(mem, s[:2])
	if code != 0 {
		return failed(code)
	}
	return failed(i.store.del(key))
}
