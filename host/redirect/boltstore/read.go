package boltstore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/sdk/project/filelock"
)

// ErrDamaged reports a file that is not as it was written.
var ErrDamaged = errors.New("damaged")

// about is what a file says of itself besides its hops.
type about struct {
	run  uint64 // how often it was opened
	seal redirect.SealKey
}

// read gives every hop of the file at path to each, and returns what it says of
// itself; no file is an empty one, with a new key. Errors that wrap ErrDamaged name
// what is wrong.
func read(path string, each func(*redirect.Hop) error) (a about, err error) {
	switch info, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		return about{seal: redirect.NewSealKey()}, nil
	case err == nil && !info.Mode().IsRegular():
		return a, fmt.Errorf("it is no file (mode %v)", info.Mode())
	case err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return a, fmt.Errorf("others may use it (mode %v), and it has the key of the records' seal: take that from them, or begin a new file", info.Mode().Perm())
	case err == nil && info.Size() == 0:
		return a, fmt.Errorf("%w: it is empty, and no file of records ever was; remove it to begin a new one", ErrDamaged)
	}
	err = guard(func() error {
		db, err := openBolt(path, bolt.Options{Timeout: time.Second, ReadOnly: true})
		if err != nil {
			return explain(err)
		}
		defer db.Close()
		if err := checkPages(path, db.Info().PageSize); err != nil {
			return err
		}
		return db.View(func(tx *bolt.Tx) error {
			a, err = readAll(tx, each)
			return err
		})
	})
	return a, err
}

// openBolt opens a file, or says why that cannot be read: bbolt only says that it is no
// database then.
func openBolt(path string, o bolt.Options) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &o)
	if errors.Is(err, berrors.ErrInvalid) {
		if e := checkPages(path, os.Getpagesize()); e != nil && !errors.Is(e, ErrDamaged) {
			err = e
		}
	}
	return db, err
}

// explain tells a damaged file from one that the system does not give.
func explain(err error) error {
	if errors.Is(err, berrors.ErrTimeout) { // It is locked itself too: somebody removed the lock.
		return filelock.ErrLocked
	}
	if _, system := errors.AsType[syscall.Errno](err); system {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func readAll(tx *bolt.Tx, each func(*redirect.Hop) error) (about, error) {
	itself, hops := tx.Bucket(aboutBucket), tx.Bucket(hopsBucket)
	if itself == nil || hops == nil {
		return about{}, fmt.Errorf("%w: it has no redirect records", ErrDamaged)
	}
	a, should, err := readAbout(itself, uint64(tx.ID()))
	if err != nil {
		return about{}, err
	}
	return a, readHops(hops, should, each)
}

// readAbout reads what a file says of itself, and which hops it must have, by its newest
// transaction.
func readAbout(itself *bolt.Bucket, newest uint64) (a about, should state, err error) {
	version, err := value(itself, formatKey, 8)
	if err == nil && binary.BigEndian.Uint64(version) != formatVersion {
		err = fmt.Errorf("its format is version %d, this program reads %d", binary.BigEndian.Uint64(version), formatVersion)
	}
	hops, errHops := checkedValue(itself, stateKey, 24)
	run, errRun := checkedValue(itself, runKey, 8)
	seal, errSeal := checkedValue(itself, sealKey, len(a.seal))
	if err := cmp.Or(err, errHops, errRun, errSeal); err != nil {
		return a, should, err
	}
	if tx := binary.BigEndian.Uint64(hops[16:]); tx != newest {
		return a, should, fmt.Errorf("%w: it is of transaction %d and has what it was at %d", ErrDamaged, newest, tx)
	}
	return about{run: binary.BigEndian.Uint64(run), seal: redirect.SealKey(seal)},
		state{count: binary.BigEndian.Uint64(hops), sums: binary.BigEndian.Uint64(hops[8:])}, nil
}

// value is the value of a key, which has n bytes.
func value(itself *bolt.Bucket, key []byte, n int) ([]byte, error) {
	b := itself.Get(key)
	if len(b) != n {
		return nil, fmt.Errorf("%w: it does not say its %q", ErrDamaged, key)
	}
	return b, nil
}

// checkedValue undoes checked.
func checkedValue(itself *bolt.Bucket, key []byte, n int) ([]byte, error) {
	b, err := value(itself, key, n+crcLen)
	if err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(b[n:]) != sum(key, b[:n]) {
		return nil, fmt.Errorf("%w: its %q has another checksum", ErrDamaged, key)
	}
	return b[:n], nil
}

// readHops reads as many hops as there must be, in ascending order.
func readHops(hops *bolt.Bucket, should state, each func(*redirect.Hop) error) error {
	is, last := state{}, []byte(nil)
	err := hops.ForEach(func(k, v []byte) error {
		n := is.count + 1
		if n > should.count || n > 1 && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: record %d of %d is one too many", ErrDamaged, n, should.count)
		}
		last = append(last[:0], k...)
		h, err := decode(k, v)
		if err != nil {
			return fmt.Errorf("%w: record %d of %d: %w", ErrDamaged, n, should.count, err)
		}
		is.add(v)
		return each(h)
	})
	switch {
	case err != nil:
		return err
	case is.count != should.count:
		return fmt.Errorf("%w: %d of %d records are there", ErrDamaged, is.count, should.count)
	case is.sums != should.sums:
		return fmt.Errorf("%w: some of its %d records are older ones", ErrDamaged, should.count)
	}
	return nil
}

// decode returns a hop that holds on to nothing of the file.
func decode(key, value []byte) (*redirect.Hop, error) {
	if len(key) != 8 || len(value) < crcLen {
		return nil, fmt.Errorf("a key of %d bytes, a value of %d", len(key), len(value))
	}
	serial, encoded := binary.BigEndian.Uint64(key), bytes.Clone(value[crcLen:])
	if want, got := binary.LittleEndian.Uint32(value), sum(key, encoded); want != got {
		return nil, fmt.Errorf("hop %d has the checksum %08x, not %08x", serial, got, want)
	}
	h, err := redirect.DecodeHop(encoded)
	if err == nil && h.Serial != serial {
		err = fmt.Errorf("hop %d is kept as hop %d", h.Serial, serial)
	}
	return h, err
}

// guard turns what bbolt does with a damaged file into an error: it panics, and
// reads behind the end of the mapped file.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return f()
}
