// Package memstore keeps redirect records on the Go heap.
package memstore

import (
	"fmt"
	"sync"

	"github.com/calloutd/calloutd/host/internal/percore"
	"github.com/calloutd/calloutd/host/redirect"
)

// keptMap is how many hops the map of an empty shard may have had.
const keptMap = 1 << 10

// DefaultLimit is how many live hops a Store holds unless told otherwise.
const DefaultLimit = 1 << 20

// Store is a redirect.Store in memory. Make it with New.
type Store struct {
	serials *percore.Serials
	quota   *percore.Quota
	shards  []shard
}

type shard struct {
	mu    sync.Mutex
	hops  map[uint64]entry
	most  int // hops that it has had
	share percore.Share
	_     [64]byte // one cache line each
}

type entry struct {
	hop  *redirect.Hop
	refs uint64
}

// New returns a store for limit live hops; zero means DefaultLimit.
func New(limit int) *Store {
	if limit <= 0 {
		limit = DefaultLimit
	}
	n := percore.Shards()
	s := &Store{serials: percore.NewSerials(n), quota: percore.NewQuota(limit, n), shards: make([]shard, n)}
	for i := range s.shards {
		s.shards[i].hops = make(map[uint64]entry)
	}
	return s
}

func (s *Store) shard(serial uint64) *shard { return &s.shards[s.serials.Shard(serial)] }

// NewSerial returns a serial for a new hop.
func (s *Store) NewSerial() uint64 { return s.serials.Next() }

// Put keeps h with one reference.
func (s *Store) Put(h *redirect.Hop) error {
	d := s.shard(h.Serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	for !s.quota.Take(&d.share) {
		d.mu.Unlock()
		full := s.full()
		d.mu.Lock()
		if full {
			return fmt.Errorf("%w: %d hops are live, the limit; raise the limit", redirect.ErrFull, s.quota.Limit())
		}
	}
	if _, ok := d.hops[h.Serial]; ok {
		s.quota.Give(&d.share)
		return fmt.Errorf("%w: %d", redirect.ErrExists, h.Serial)
	}
	d.hops[h.Serial] = entry{hop: h, refs: 1}
	d.most = max(d.most, len(d.hops))
	return nil
}

// full says that no shard has room for a hop.
func (s *Store) full() bool {
	for i := range s.shards {
		d := &s.shards[i]
		d.mu.Lock()
		s.quota.Collect(&d.share)
		d.mu.Unlock()
	}
	return s.quota.Left() == 0
}

// Replace puts h in the place of the hop with its serial.
func (s *Store) Replace(h *redirect.Hop) error {
	d := s.shard(h.Serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.hops[h.Serial]
	if !ok {
		return redirect.ErrNotFound
	}
	e.hop = h
	d.hops[h.Serial] = e
	return nil
}

// Acquire takes one more reference.
func (s *Store) Acquire(serial uint64) (*redirect.Hop, error) {
	d := s.shard(serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.hops[serial]
	if !ok {
		return nil, redirect.ErrNotFound
	}
	e.refs++
	d.hops[serial] = e
	return e.hop, nil
}

// Retain takes one more reference.
func (s *Store) Retain(serial uint64) error {
	_, err := s.Acquire(serial)
	return err
}

// Release gives one reference back; the last one deletes the hop.
func (s *Store) Release(serial uint64) error {
	d := s.shard(serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.hops[serial]
	if !ok {
		return redirect.ErrNotFound
	}
	if e.refs--; e.refs > 0 {
		d.hops[serial] = e
		return nil
	}
	delete(d.hops, serial)
	s.quota.Give(&d.share)
	if len(d.hops) == 0 && d.most > keptMap { // A map never shrinks, and a core may go on in another shard.
		d.hops, d.most = make(map[uint64]entry), 0
	}
	return nil
}

// Len is the number of live hops.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		d := &s.shards[i]
		d.mu.Lock()
		n += len(d.hops)
		d.mu.Unlock()
	}
	return n
}
