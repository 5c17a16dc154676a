// Package arenastore keeps redirect records outside of the Go heap, encoded, so
// that a million of them cost the garbage collector nothing.
package arenastore

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"

	"github.com/calloutd/calloutd/host/redirect"
)

// The limits of a Store unless told otherwise.
const (
	DefaultMaxHops  = 1 << 20
	DefaultMaxBytes = 4 << 30
)

// Options configure a Store. All are optional.
type Options struct {
	MaxHops  int   // live hops; zero is DefaultMaxHops
	MaxBytes int64 // memory of the hops in bytes; zero is DefaultMaxBytes
}

// Store is a redirect.Store. Make it with New.
//
// Its memory goes back to the system as hops go, and with the Store itself.
type Store struct {
	pool   *pool
	shards []shard
	live   atomic.Int64
	limit  int64
}

// maxShards is a power of two; a bit of the hash chooses a shard or a table, not both.
const maxShards = 256

// New returns an empty store.
func New(o Options) *Store { return open(o, defaultMemory()) }

func open(o Options, m memory) *Store {
	if o.MaxHops <= 0 {
		o.MaxHops = DefaultMaxHops
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	n := min(maxShards, 1<<bits.Len(uint(4*runtime.GOMAXPROCS(0)-1)))
	s := &Store{pool: newPool(m, o.MaxBytes), shards: make([]shard, n), limit: int64(o.MaxHops)}
	for i := range s.shards {
		s.shards[i].pool = s.pool
	}
	// To the shards and not to s: an operation holds on to its shard to the end.
	runtime.AddCleanup(&s.shards[0], (*pool).close, s.pool)
	return s
}

func (s *Store) shard(h uint64) *shard { return &s.shards[h&uint64(len(s.shards)-1)] }

// Put keeps h with one reference.
func (s *Store) Put(h *redirect.Hop) error {
	n, err := encodedLen(h)
	if err != nil {
		return err
	}
	if live := s.live.Add(1); live > s.limit {
		s.live.Add(-1)
		return fmt.Errorf("%w: %d hops are live, the limit; raise the limit", redirect.ErrFull, s.limit)
	}
	x := hash(h.Serial)
	d := s.shard(x)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.insert(x, h, n); err != nil {
		s.live.Add(-1)
		return err
	}
	return nil
}

func (d *shard) insert(x uint64, h *redirect.Hop, n int) error {
	// Written before it is known that the serial is new: the two are far apart in
	// memory, and the processor waits for both at once.
	r, err := d.write(h, n)
	if err != nil {
		return err
	}
	t := d.table(x)
	if t.find(x, h.Serial) != nil {
		d.give(r)
		return fmt.Errorf("%w: %d", redirect.ErrExists, h.Serial)
	}
	t.insert(x, entry{h.Serial, r, 1})
	*d.newest(x) = h
	return nil
}

func encodedLen(h *redirect.Hop) (int, error) {
	n, err := h.EncodedLen()
	if err == nil && slotHop+n > maxSlot {
		err = fmt.Errorf("%w: %d bytes, at most %d can be kept", redirect.ErrTooLarge, n, maxSlot-slotHop)
	}
	return n, err
}

// Replace puts h in the place of the hop with its serial. When it fails the old
// hop stays.
func (s *Store) Replace(h *redirect.Hop) error {
	n, err := encodedLen(h)
	if err != nil {
		return err
	}
	x := hash(h.Serial)
	d := s.shard(x)
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table(x).find(x, h.Serial)
	if e == nil {
		return redirect.ErrNotFound
	}
	r, err := d.write(h, n)
	if err != nil {
		return err
	}
	old := e.ref
	e.ref = r
	d.give(old)
	*d.newest(x) = h
	return nil
}

// Acquire takes one more reference. The hop is the one that was put or a copy.
func (s *Store) Acquire(serial uint64) (*redirect.Hop, error) {
	x := hash(serial)
	d := s.shard(x)
	h, n, err := d.acquire(x, serial)
	if h != nil || err != nil {
		return h, err
	}
	b, err := d.read(x, serial, n)
	if err != nil {
		return nil, err
	}
	return redirect.DecodeHop(b)
}

// acquire returns the hop if it is a recent one, the length of its encoding if not.
func (d *shard) acquire(x, serial uint64) (*redirect.Hop, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, err := d.hold(x, serial)
	if err != nil {
		return nil, 0, err
	}
	if h := *d.newest(x); h != nil && h.Serial == serial {
		return h, 0, nil
	}
	return nil, slotLen(d.pool.slot(e.ref)), nil
}

// hold takes one more reference, under the lock.
func (d *shard) hold(x, serial uint64) (*entry, error) {
	e := d.table(x).find(x, serial)
	switch {
	case e == nil:
		return nil, redirect.ErrNotFound
	case e.refs == math.MaxUint32:
		return nil, fmt.Errorf("%w: hop %d has %d references", redirect.ErrFull, serial, e.refs)
	}
	e.refs++
	return e, nil
}

// Retain takes one more reference.
func (s *Store) Retain(serial uint64) error {
	x := hash(serial)
	d := s.shard(x)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.hold(x, serial)
	return err
}

// read copies an encoding of about n bytes. Memory is allocated without the lock.
func (d *shard) read(x, serial uint64, n int) ([]byte, error) {
	for {
		b := make([]byte, n)
		var err error
		if n, err = d.copy(b, x, serial); err != nil {
			return nil, err
		}
		if n <= len(b) { // It is longer if it was replaced meanwhile.
			return b[:n:n], nil
		}
	}
}

// copy copies an encoding into dst, if it fits, and returns its length.
func (d *shard) copy(dst []byte, x, serial uint64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table(x).find(x, serial)
	if e == nil {
		return 0, redirect.ErrNotFound
	}
	b := d.pool.slot(e.ref)
	if slotSerial(b) != serial { // Never: the slot has the last word.
		return 0, redirect.ErrNotFound
	}
	copy(dst, slotEncoded(b))
	return slotLen(b), nil
}

// Release gives one reference back; the last one deletes the hop.
func (s *Store) Release(serial uint64) error {
	_, err := s.Drop(serial)
	return err
}

// Drop is Release and says whether the hop went.
func (s *Store) Drop(serial uint64) (last bool, err error) {
	x := hash(serial)
	d := s.shard(x)
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table(x)
	e := t.find(x, serial)
	if e == nil {
		return false, redirect.ErrNotFound
	}
	if e.refs--; e.refs > 0 {
		return false, nil
	}
	r := e.ref
	t.remove(x, serial)
	d.give(r)
	if h := d.newest(x); *h != nil && (*h).Serial == serial {
		*h = nil
	}
	s.live.Add(-1)
	return true, nil
}

// Len is the number of live hops.
func (s *Store) Len() int { return int(s.live.Load()) }

// Memory is how much memory the hops take from the system, in bytes, without the
// index, which takes 16 to 43 bytes a hop.
func (s *Store) Memory() int64 { return s.pool.Memory() }

// AppendEncoded appends the encoding of a live hop to b (see redirect.DecodeHop).
func (s *Store) AppendEncoded(b []byte, serial uint64) ([]byte, error) {
	x := hash(serial)
	d := s.shard(x)
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table(x).find(x, serial)
	if e == nil {
		return b, redirect.ErrNotFound
	}
	return append(b, slotEncoded(d.pool.slot(e.ref))...), nil
}

// Serials returns the serials of all live hops, in no order. A hop that comes or
// goes meanwhile is among them or not.
func (s *Store) Serials() []uint64 {
	serials := make([]uint64, 0, s.Len())
	for i := range s.shards {
		serials = s.shards[i].appendSerials(serials)
	}
	return serials
}

func (d *shard) appendSerials(serials []uint64) []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.tables {
		for _, e := range d.tables[i].entries {
			if e.ref != 0 {
				serials = append(serials, e.serial)
			}
		}
	}
	return serials
}
