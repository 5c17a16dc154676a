package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/calloutd/calloutd/sdk/project/filelock"
)

// The format of a file: a bbolt database with two buckets. "hops" has the encoded
// hops by serial (64 bits, big-endian), each after a CRC-32C of the serial and the
// encoding. "about" says what the file is and how many hops it must have; what nothing
// else would contradict is there with a checksum.
const formatVersion = 1

var (
	hopsBucket  = []byte("hops")
	aboutBucket = []byte("about")

	formatKey = []byte("calloutd redirect records") // version
	runKey    = []byte("run")                       // checked: how often the file was opened
	stateKey  = []byte("hops")                      // checked: a state, with each transaction
	sealKey   = []byte("seal")                      // checked: a redirect.SealKey
)

const crcLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(key, encoded []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, encoded)
}

// checked is a value and the CRC-32C of its key and itself.
func checked(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, sum(key, value))
}

// A state is what the hops of a file are together: so it has no older one of them, and
// none of another transaction.
type state struct {
	count, sums uint64 // of the checksums of all hops
}

func (s state) bytes(tx *bolt.Tx) []byte {
	return checked(stateKey, slices.Concat(u64(s.count), u64(s.sums), u64(uint64(tx.ID()))))
}

func (s *state) add(value []byte) {
	s.count++
	s.sums += uint64(binary.LittleEndian.Uint32(value))
}

func (s *state) remove(value []byte) {
	s.count--
	s.sums -= uint64(binary.LittleEndian.Uint32(value))
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// A getter appends the encoding of a live hop to b.
type getter func(b []byte, serial uint64) ([]byte, error)

// A file is open for writing. Only the writer uses it.
type file struct {
	path  string
	owned *filelock.Owned
	about about
	db    *bolt.DB
	state state
	info  os.FileInfo // after the last commit
	used  int64       // bytes of it, before that: it grows ahead
	sync  bool        // each commit waits for the disk

	compactFrom int64 // the size from which on it pays to make the file smaller
}

// options of a file that this process made. The free pages are in the file: to find them
// bbolt would walk over all of it, also after each failed write, in a goroutine of its own
// that would take the process with it where a page cannot be read.
var options = bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType}

// commit makes the hops with these serials on disk what they are in memory.
func (f *file) commit(serials []uint64, get getter) error {
	if err := f.intact(); err != nil {
		return err
	}
	db, state, size := f.db, f.state, int64(0)
	// After a panic bbolt has locks that nobody gives back, so to close it would wait for
	// ever: it is left as it is.
	f.db = nil
	return guard(func() error {
		err := db.Update(func(tx *bolt.Tx) error {
			size = tx.Size()
			return change(tx, &state, serials, get)
		})
		f.db = db
		if err != nil {
			return f.named(err)
		}
		f.state, f.used = state, size
		at("batch on disk")
		f.info, err = os.Stat(f.path)
		return err
	})
}

// intact says that the file is the one that was opened, as long as it was. What is written
// to one that was removed is lost, and what is read behind the end ends the process.
func (f *file) intact() error {
	switch info, err := os.Stat(f.path); {
	case err != nil:
		return err
	case !os.SameFile(info, f.info):
		return fmt.Errorf("%w: another file is in its place", ErrDamaged)
	case info.Size() < f.info.Size():
		return fmt.Errorf("%w: somebody cut it from %d to %d bytes", ErrDamaged, f.info.Size(), info.Size())
	}
	return nil
}

// change makes hops in the file what they are in memory.
func change(tx *bolt.Tx, state *state, serials []uint64, get getter) error {
	at("batch begun")
	hops := tx.Bucket(hopsBucket)
	hops.FillPercent = 0.9 // Serials grow: there is little to insert in between.
	for _, serial := range serials {
		key := u64(serial)
		known := hops.Get(key)
		if known != nil {
			state.remove(known)
		}
		value, err := get(make([]byte, crcLen, 512), serial)
		switch {
		case err == nil:
			binary.LittleEndian.PutUint32(value, sum(key, value[crcLen:]))
			state.add(value)
			err = hops.Put(key, value)
		case known != nil:
			err = hops.Delete(key)
		default: // It came and went.
			err = nil
		}
		if err != nil {
			return err
		}
	}
	at("batch written")
	return tx.Bucket(aboutBucket).Put(stateKey, state.bytes(tx))
}

// sparse says that most of a large file is unused. It reads nothing of it: that is only
// done under guard.
func (f *file) sparse() bool {
	s := f.db.Stats()
	free := int64(s.FreePageN+s.PendingPageN) * int64(os.Getpagesize()) // which is what new files have
	return f.used >= f.compactFrom && free > f.used*3/4
}

// rewrite makes the file anew with the hops of the given serials, in ascending
// order, and puts it in the place of what is there: after a crash there is the one
// or the other. It is the way out of every state of the old file.
func (f *file) rewrite(serials []uint64, get getter) error {
	if err := f.owned.Keep(); err != nil {
		return err
	}
	return guard(func() error {
		temporary := f.path + ".new"
		if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		at("rewrite begun")
		state, err := f.create(temporary, serials, get)
		if err != nil {
			_ = os.Remove(temporary) // It may be what fills the disk.
			return f.named(err)
		}
		at("rewrite written")
		_ = f.close() // Windows renames no open file; what is in it does not matter.
		if err := os.Rename(temporary, f.path); err != nil {
			return err
		}
		at("rewrite renamed")
		if err := syncDir(filepath.Dir(f.path)); err != nil {
			return err
		}
		o := options
		o.NoSync = !f.sync
		if f.db, err = openBolt(f.path, o); err != nil {
			return f.named(err)
		}
		f.state, f.used = state, 0
		f.info, err = os.Stat(f.path)
		return err
	})
}

// create makes a file and returns when it is on disk.
func (f *file) create(path string, serials []uint64, get getter) (state state, err error) {
	o := options
	o.NoSync = true // Once, at the end.
	db, err := openBolt(path, o)
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Update(f.describe); err != nil {
		return state, err
	}
	const step = 10_000 // A transaction holds what it changes in memory.
	for len(serials) > 0 {
		n := min(step, len(serials))
		if err := db.Update(func(tx *bolt.Tx) error { return change(tx, &state, serials[:n], get) }); err != nil {
			return state, err
		}
		serials = serials[n:]
		at("rewrite half")
	}
	// Once more: when its newest page of metadata is damaged, bbolt takes the one
	// before, which is then as new.
	err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket(aboutBucket).Put(stateKey, state.bytes(tx)) })
	return state, errors.Join(err, db.Sync())
}

func (f *file) describe(tx *bolt.Tx) error {
	about, err := tx.CreateBucket(aboutBucket)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucket(hopsBucket); err != nil {
		return err
	}
	return errors.Join(about.Put(formatKey, u64(formatVersion)), about.Put(stateKey, state{}.bytes(tx)),
		about.Put(runKey, checked(runKey, u64(f.about.run))), about.Put(sealKey, checked(sealKey, f.about.seal[:])))
}

// named says which file it is where bbolt has only the system's words.
func (f *file) named(err error) error {
	if strings.Contains(err.Error(), f.path) {
		return err
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

// close closes the file. What was committed without waiting for the disk gets there.
func (f *file) close() error {
	if f.db == nil {
		return nil
	}
	db := f.db
	f.db = nil
	return guard(func() error {
		var err error
		if !f.sync {
			err = db.Sync()
		}
		return errors.Join(err, db.Close())
	})
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // Directories cannot be synced there.
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// at is called at the points where a crash is most telling. Tests end the process there.
var at = func(point string) {}
