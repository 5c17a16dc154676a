package pebble_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/calloutd/calloutd/host/redirect/boltstore/engines"
)

type engine struct{ *pebble.DB }

func open(dir string) (engines.Engine, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{pebble.DefaultLogger}})
	return engine{db}, err
}

type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}

func (e engine) Batch(put, del []uint64) error {
	b := e.NewBatch()
	for _, n := range put {
		if err := b.Set(engines.Key(n), engines.Value(n), nil); err != nil {
			return err
		}
	}
	for _, n := range del {
		if err := b.Delete(engines.Key(n), nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (e engine) Each(f func([]byte)) error {
	it, err := e.NewIter(nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		f(it.Value())
	}
	return it.Close()
}

func Benchmark(b *testing.B) { engines.Bench(b, open) }
