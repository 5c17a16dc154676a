// Package engines measures what could be under a boltstore. It is a module of its
// own: nothing that it imports reaches calloutd.
package engines

import (
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// An Engine keeps records by number.
type Engine interface {
	// Batch puts and deletes and returns when that is on disk.
	Batch(put, del []uint64) error
	// Each reads all records.
	Each(f func(value []byte)) error
	Close() error
}

const batch = 1000

var noise = func() []byte {
	b := make([]byte, 4096)
	x := uint64(1)
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}()

// Value is a record of 100 to 1,024 bytes that does not compress.
func Value(n uint64) []byte {
	x := n * 0x9E3779B97F4A7C15 >> 32
	return noise[x%1024:][:100+x%925]
}

// Key sorts as the number does.
func Key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func numbers(from, n int) []uint64 {
	ns := make([]uint64, n)
	for i := range ns {
		ns[i] = uint64(from + i)
	}
	return ns
}

// Bench measures an engine; ns/op are of one record.
func Bench(b *testing.B, open func(dir string) (Engine, error)) {
	begin := func(b *testing.B, records int) (Engine, string) {
		dir := b.TempDir()
		e, err := open(dir)
		check(b, err)
		for i := 0; i < records; i += batch {
			check(b, e.Batch(numbers(i, min(batch, records-i)), nil))
		}
		b.ResetTimer()
		return e, dir
	}
	b.Run("put", func(b *testing.B) { // In batches.
		e, dir := begin(b, 0)
		for i := 0; i < b.N; i += batch {
			check(b, e.Batch(numbers(i, min(batch, b.N-i)), nil))
		}
		b.StopTimer()
		b.ReportMetric(float64(size(b, dir))/float64(b.N), "disk-B/op")
		check(b, e.Close())
	})
	b.Run("churn", func(b *testing.B) { // In batches: as many come as go.
		e, dir := begin(b, b.N)
		for i := 0; i < b.N; i += batch {
			n := min(batch, b.N-i)
			check(b, e.Batch(numbers(b.N+i, n), numbers(i, n)))
		}
		b.StopTimer()
		b.ReportMetric(float64(size(b, dir))/float64(b.N), "disk-B/op")
		check(b, e.Close())
	})
	b.Run("open", func(b *testing.B) { // And read all.
		e, dir := begin(b, b.N)
		check(b, e.Close())
		b.ResetTimer()
		e, err := open(dir)
		check(b, err)
		n := 0
		check(b, e.Each(func([]byte) { n++ }))
		b.StopTimer()
		if n != b.N {
			b.Fatalf("%d of %d records", n, b.N)
		}
		check(b, e.Close())
	})
	b.Run("one", func(b *testing.B) { // On disk, each alone.
		e, _ := begin(b, 0)
		for i := range min(b.N, 1000) {
			check(b, e.Batch(numbers(i, 1), nil))
		}
		b.StopTimer()
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(min(b.N, 1000)), "ns/op")
		check(b, e.Close())
	})
}

func check(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

func size(b *testing.B, dir string) (n int64) {
	check(b, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var i os.FileInfo
			if i, err = d.Info(); err == nil {
				n += i.Size()
			}
		}
		return err
	}))
	return n
}
