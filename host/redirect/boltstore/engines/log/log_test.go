package log_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/calloutd/calloutd/host/redirect/boltstore/engines"
)

// The floor: records and deletions at the end of a file, which never gets smaller.
type engine struct{ *os.File }

func open(dir string) (engines.Engine, error) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	return engine{f}, err
}

func (e engine) Batch(put, del []uint64) error {
	var b []byte
	for _, n := range put {
		v := engines.Value(n)
		b = binary.BigEndian.AppendUint32(append(b, engines.Key(n)...), uint32(len(v)))
		b = append(b, v...)
	}
	for _, n := range del {
		b = binary.BigEndian.AppendUint32(append(b, engines.Key(n)...), 0)
	}
	if _, err := e.Write(b); err != nil {
		return err
	}
	return e.Sync()
}

func (e engine) Each(f func([]byte)) error {
	b, err := os.ReadFile(e.Name())
	for at := 0; at < len(b); {
		n := int(binary.BigEndian.Uint32(b[at+8:]))
		f(b[at+12:][:n])
		at += 12 + n
	}
	return err
}

func Benchmark(b *testing.B) { engines.Bench(b, open) }
