// Package arenastore keeps redirect records outside of the Go heap, encoded, so
// that a million of them cost the garbage collector nothing.
package arenastore

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"

	"github.com/calloutd/calloutd/host/internal/percore"
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
// Its memory goes back to the system as hops go, but for some MiB that it breathes
// with, and with the Store itself.
type Store struct {
	serials *percore.Serials
	quota   *percore.Quota
	shards  []shard
	pool    *pool
}

// New returns an empty store.
func New(o Options) *Store { return open(o, defaultMemory()) }

func open(o Options, m memory) *Store {
	if o.MaxHops <= 0 {
		o.MaxHops = DefaultMaxHops
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	n := percore.Shards()
	s := &Store{serials: percore.NewSerials(n), quota: percore.NewQuota(o.MaxHops, n), shards: make([]shard, n), pool: newPool(m, o.MaxBytes, n)}
	for i := range s.shards {
		s.shards[i].number, s.shards[i].pool = i, s.pool
	}
	// To the shards and not to s: an operation holds on to its shard to the end.
	runtime.AddCleanup(&s.shards[0], (*pool).close, s.pool)
	return s
}

func (s *Store) shard(serial uint64) *shard { return &s.shards[s.serials.Shard(serial)] }

// NewSerial returns a serial for a new hop.
func (s *Store) NewSerial() uint64 { return s.serials.Next() }

// Put keeps h with one reference.
func (s *Store) Put(h *redirect.Hop) error {
	n, err := encodedLen(h)
	if err != nil {
		return err
	}
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
	if err := d.insert(hash(h.Serial), h, n); err != nil {
		s.quota.Give(&d.share)
		return err
	}
	d.live++
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

func (d *shard) insert(x uint64, h *redirect.Hop, n int) error {
	// Written before it is known that the serial is new: the two are far apart in
	// memory, and the processor waits for both at once.
	class := classFor(n)
	r, err := d.write(h, n, class)
	if err != nil {
		return err
	}
	t := d.table(x)
	if t.find(x, h.Serial) != nil {
		d.give(r, class)
		return fmt.Errorf("%w: %d", redirect.ErrExists, h.Serial)
	}
	t.insert(d.pool, x, entry{h.Serial, r, oneHolder | holders(class)})
	*d.newest(x) = recent{h.Serial, h}
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
	d := s.shard(h.Serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.table(x).find(x, h.Serial)
	if e == nil {
		return redirect.ErrNotFound
	}
	class := classFor(n)
	r, err := d.write(h, n, class)
	if err != nil {
		return err
	}
	old := *e
	e.ref, e.holders = r, e.holders-holders(e.class())|holders(class)
	d.give(old.ref, old.class())
	*d.newest(x) = recent{h.Serial, h}
	return nil
}

// Acquire takes one more reference. The hop is the one that was put or a copy.
func (s *Store) Acquire(serial uint64) (*redirect.Hop, error) {
	x := hash(serial)
	b := scratch.Get().(*[maxSlot]byte)
	defer scratch.Put(b)
	h, encoded, err := s.shard(serial).acquire(b[:0], x, serial)
	if h == nil && err == nil {
		return redirect.DecodeHop(bytes.Clone(encoded))
	}
	return h, err
}

// scratch is where an encoding goes under the lock, so that memory is allocated
// without it.
var scratch = sync.Pool{New: func() any { return new([maxSlot]byte) }}

// acquire returns the hop if it is a recent one; if not, its encoding, in b.
func (d *shard) acquire(b []byte, x, serial uint64) (h *redirect.Hop, encoded []byte, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, err := d.hold(x, serial)
	if err != nil {
		return nil, nil, err
	}
	if r := d.newest(x); r.serial == serial && r.hop != nil {
		return r.hop, nil, nil
	}
	encoded, err = d.appendEncoded(b, e)
	return nil, encoded, err
}

// hold takes one more reference, under the lock.
func (d *shard) hold(x, serial uint64) (*entry, error) {
	e := d.table(x).find(x, serial)
	switch {
	case e == nil:
		return nil, redirect.ErrNotFound
	case e.count() == maxHolders:
		return nil, fmt.Errorf("%w: hop %d has %d references", redirect.ErrFull, serial, maxHolders)
	}
	e.holders += oneHolder
	return e, nil
}

// Retain takes one more reference.
func (s *Store) Retain(serial uint64) error {
	x := hash(serial)
	d := s.shard(serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.hold(x, serial)
	return err
}

// Release gives one reference back; the last one deletes the hop.
func (s *Store) Release(serial uint64) error {
	_, err := s.Drop(serial)
	return err
}

// Drop is Release and says whether the hop went.
func (s *Store) Drop(serial uint64) (last bool, err error) {
	x := hash(serial)
	d := s.shard(serial)
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table(x)
	i := t.at(x, serial)
	if i < 0 {
		return false, redirect.ErrNotFound
	}
	e := &t.entries[i]
	if e.holders -= oneHolder; e.count() > 0 {
		return false, nil
	}
	r, class := e.ref, e.class()
	t.remove(d.pool, i)
	d.give(r, class)
	if h := d.newest(x); h.serial == serial {
		*h = recent{}
	}
	d.live--
	s.quota.Give(&d.share)
	return true, nil
}

// Len is the number of live hops.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		d := &s.shards[i]
		d.mu.Lock()
		n += d.live
		d.mu.Unlock()
	}
	return n
}

// Memory is how much memory the hops take from the system, in bytes, without the
// index, which takes 21 to 51 bytes a hop.
func (s *Store) Memory() int64 { return s.pool.Memory() }
