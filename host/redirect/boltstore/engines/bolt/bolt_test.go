package bolt_test

import (
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/calloutd/calloutd/host/redirect/boltstore/engines"
)

type engine struct{ *bolt.DB }

var bucket = []byte("records")

func open(dir string) (engines.Engine, error) {
	db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return engine{db}, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (e engine) Batch(put, del []uint64) error {
	return e.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		b.FillPercent = 0.9
		for _, n := range put {
			if err := b.Put(engines.Key(n), engines.Value(n)); err != nil {
				return err
			}
		}
		for _, n := range del {
			if err := b.Delete(engines.Key(n)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e engine) Each(f func([]byte)) error {
	return e.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(_, v []byte) error {
			f(v)
			return nil
		})
	})
}

func Benchmark(b *testing.B) { engines.Bench(b, open) }
