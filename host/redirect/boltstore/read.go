package boltstore

import (
	"bytes"
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
	case err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return a, fmt.Errorf("others may use it (mode %v), and it has the key of the records' seal: take that from them, or begin a new file", info.Mode().Perm())
	}
	err = guard(func() error {
		db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
		if err != nil {
			return explain(err)
		}
		defer db.Close()
		return db.View(func(tx *bolt.Tx) error {
			a, err = readAll(tx, each)
			return err
		})
	})
	return a, err
}

// explain tells a damaged file from one that the system does not give.
func explain(err error) error {
	var system syscall.Errno
	if errors.As(err, &system) || errors.Is(err, berrors.ErrTimeout) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func readAll(tx *bolt.Tx, each func(*redirect.Hop) error) (a about, err error) {
	itself, hops := tx.Bucket(aboutBucket), tx.Bucket(hopsBucket)
	if itself == nil || hops == nil {
		return a, fmt.Errorf("%w: it has no redirect records", ErrDamaged)
	}
	number := func(key []byte) uint64 {
		b := itself.Get(key)
		if len(b) != 8 {
			err = fmt.Errorf("%w: it does not say its %q", ErrDamaged, key)
			return 0
		}
		return binary.BigEndian.Uint64(b)
	}
	version, run, count := number(formatKey), number(runKey), number(countKey)
	if err != nil {
		return a, err
	}
	if version != formatVersion {
		return a, fmt.Errorf("its format is version %d, this program reads %d", version, formatVersion)
	}
	seal := itself.Get(sealKey)
	if len(seal) != len(a.seal)+crcLen || binary.LittleEndian.Uint32(seal[len(a.seal):]) != sum(sealKey, seal[:len(a.seal)]) {
		return a, fmt.Errorf("%w: it does not say its %q", ErrDamaged, sealKey)
	}
	a.run, a.seal = run, redirect.SealKey(seal[:len(a.seal)])
	return a, readHops(hops, count, each)
}

// readHops reads as many hops as there must be, in ascending order.
func readHops(hops *bolt.Bucket, count uint64, each func(*redirect.Hop) error) error {
	n, last := uint64(0), []byte(nil)
	err := hops.ForEach(func(k, v []byte) error {
		if n++; n > count || n > 1 && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: record %d of %d is one too many", ErrDamaged, n, count)
		}
		last = append(last[:0], k...)
		h, err := decode(k, v)
		if err != nil {
			return fmt.Errorf("%w: record %d of %d: %w", ErrDamaged, n, count, err)
		}
		return each(h)
	})
	if err == nil && n != count {
		err = fmt.Errorf("%w: %d of %d records are there", ErrDamaged, n, count)
	}
	return err
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
