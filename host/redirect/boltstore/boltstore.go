// Package boltstore keeps redirect records in memory and, behind that, in a file:
// records that must be there after the process ended, and what an audit reads.
//
// Answers come from memory (arenastore). A writer follows in batches; how far
// behind it may be when Put returns is the Durability. Only programs that import
// this package depend on bbolt.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/arenastore"
	"github.com/calloutd/calloutd/sdk/project/filelock"
)

// A Durability is what Put and Replace wait for.
type Durability uint8

const (
	// Batched waits for nothing. What was put is on disk after about an interval,
	// or when Flush returns.
	Batched Durability = iota
	// Sync waits until the hop is on disk. Hops that are put at the same time
	// share the wait.
	Sync
	// None waits for nothing and never for the disk: the end of the process loses
	// about an interval, the end of the machine may leave a damaged file.
	None
)

// Options configure a Store.
type Options struct {
	Path       string // Required: the file. Beside it is a lock while it is open and, for a while, Path.new.
	Durability Durability
	Memory     arenastore.Options

	// Queue is how many changes may wait for the disk before Put refuses. Optional: 65,536.
	Queue int
	// Batch is how many changes are written at once. Optional: 1,000.
	Batch int
	// Interval is how long changes wait for others to be written with. Optional: 5 ms.
	Interval time.Duration

	// OnRecover hears of each hop that was found in the file, in the order of
	// serials, before Open returns. A hop that it does not keep is given up; one
	// that it keeps has one reference, which somebody must give back. Optional:
	// all are kept.
	OnRecover func(*redirect.Hop) (keep bool)
	// OnWrite hears when writing begins to fail, with the reason, and when it is
	// well again, with nil. Optional; called by the writer.
	OnWrite func(error)
}

// Store is a redirect.Store. Make it with Open; Close must be called.
type Store struct {
	memory *arenastore.Store
	queue  *queue
	opts   Options
	owned  *filelock.Owned
	about  about
	writer writer
	ended  chan struct{} // closed when the writer has ended
}

// compactFrom is from which size on a file is made smaller when most is unused.
var compactFrom int64 = 16 << 20

// Open reads the file, or begins one, and writes it anew: without gaps, and
// without trust in what is between the records. When it returns nil, what is in
// memory is on disk.
//
// A damaged file is an error that wraps ErrDamaged, never a smaller store; one that
// another process has, an error that wraps filelock.ErrLocked.
func Open(o Options) (*Store, error) {
	if o.Path == "" {
		return nil, errors.New("boltstore: Options.Path is required")
	}
	o.Queue, o.Batch = positive(o.Queue, 1<<16), positive(o.Batch, 1000)
	o.Interval = positive(o.Interval, 5*time.Millisecond)
	s := &Store{memory: arenastore.New(o.Memory), queue: newQueue(o.Queue, o.Batch), opts: o, ended: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("boltstore: %s: %w", o.Path, err)
	}
	go s.write()
	return s, nil
}

func positive[T int | time.Duration](n, otherwise T) T {
	if n <= 0 {
		return otherwise
	}
	return n
}

func (s *Store) open() (err error) {
	// A link to a file stays one.
	if to, err := filepath.EvalSymlinks(s.opts.Path); err == nil {
		s.opts.Path = to
	}
	if s.owned, err = filelock.Own(s.opts.Path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = s.writer.file.close()
			s.owned.Release()
		}
	}()
	if s.about, err = read(s.opts.Path, s.memory.Put); err != nil {
		return err
	}
	if s.about.run++; s.about.run >= 1<<(64-runShift) {
		return fmt.Errorf("it was opened %d times and has no serials for one more; begin a new file", s.about.run-1)
	}
	if err := s.recovered(); err != nil {
		return err
	}
	at("file read")
	s.writer.file = file{path: s.opts.Path, owned: s.owned, about: s.about, sync: s.opts.Durability != None, compactFrom: compactFrom}
	return s.writer.rewrite(s.memory)
}

func (s *Store) recovered() error {
	if s.opts.OnRecover == nil {
		return nil
	}
	serials := s.memory.Serials()
	slices.Sort(serials)
	for _, serial := range serials {
		b, err := s.memory.AppendEncoded(nil, serial)
		if err != nil {
			return err
		}
		h, err := redirect.DecodeHop(b)
		if err != nil {
			return err
		}
		if !s.opts.OnRecover(h) {
			if err := s.memory.Release(serial); err != nil {
				return err
			}
		}
	}
	return nil
}

// SealKey is the file's own, for an engine whose records are good after a restart.
func (s *Store) SealKey() redirect.SealKey { return s.about.seal }

// NewSerial returns a serial for a new hop: the number of the run, and that of
// memory.
func (s *Store) NewSerial() uint64 {
	return s.about.run<<runShift | s.memory.NewSerial()&(1<<runShift-1)
}

// runShift leaves a core a million hops a second for 12 days, and a file 65,535 runs.
const runShift = 48

// Put keeps h. If the disk fails, or is too far behind, it refuses with
// ErrUnavailable.
func (s *Store) Put(h *redirect.Hop) error {
	if err := s.memory.Put(h); err != nil {
		return err
	}
	at("put in memory")
	err := s.changed(h.Serial)
	if err != nil {
		// It is gone for its holder, so it must be gone on disk.
		_ = s.Release(h.Serial)
	}
	return err
}

// Replace puts h in the place of the hop with its serial. When it fails, memory
// and, later, the file have the one or the other.
func (s *Store) Replace(h *redirect.Hop) error {
	if err := s.memory.Replace(h); err != nil {
		return err
	}
	return s.changed(h.Serial)
}

func (s *Store) changed(serial uint64) error {
	change, err := s.queue.put(serial)
	if err != nil || s.opts.Durability != Sync {
		return err
	}
	if err := s.queue.wait(context.Background(), change, 0); err != nil {
		return fmt.Errorf("%w: %w", redirect.ErrUnavailable, err)
	}
	return nil
}

// Acquire takes one more reference.
func (s *Store) Acquire(serial uint64) (*redirect.Hop, error) { return s.memory.Acquire(serial) }

// Retain takes one more reference.
func (s *Store) Retain(serial uint64) error { return s.memory.Retain(serial) }

// Release gives one reference back. It does not wait for the disk: a hop may be
// found again after a crash that was given up shortly before.
func (s *Store) Release(serial uint64) error {
	last, err := s.memory.Drop(serial)
	if last {
		s.queue.gone(serial)
	}
	return err
}

// Len is the number of live hops.
func (s *Store) Len() int { return s.memory.Len() }

// Behind is how many changes are not on disk.
func (s *Store) Behind() int { return s.queue.len() }

// Flush waits until all that happened before is on disk. It fails if a write fails that
// began after it was called.
func (s *Store) Flush(ctx context.Context) error {
	change, begun := s.queue.newest()
	if err := s.queue.wait(ctx, change, begun); err != nil {
		return fmt.Errorf("boltstore: %s: %w", s.opts.Path, err)
	}
	return nil
}

// Close writes what is not on disk and closes the file. From its beginning on Put
// refuses. An error says how much is lost; later calls return the same.
func (s *Store) Close() error {
	s.queue.close()
	<-s.ended
	s.owned.Release()
	if s.writer.err != nil {
		return fmt.Errorf("boltstore: %s: %w", s.opts.Path, s.writer.err)
	}
	return nil
}
