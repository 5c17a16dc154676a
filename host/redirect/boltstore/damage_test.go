package boltstore_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

// made is a file with n hops.
func made(t testing.TB, n uint64) (file string, bytes []byte) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p, Durability: boltstore.None})
	for i := range n {
		require.NoError(t, s.Put(hop(i, 0)))
	}
	require.NoError(t, s.Close())
	// A file that was made anew: of one that was written to, bbolt takes the state
	// before the last batch if its newest page of metadata is damaged, as it does
	// when a crash stopped that batch.
	require.Len(t, found(t, p), int(n))
	b, err := os.ReadFile(p)
	require.NoError(t, err)
	return p, b
}

// check opens a file that may be damaged: it has the n hops, or says what is wrong.
func check(t testing.TB, p string, n uint64) error {
	var hops []*redirect.Hop
	s, err := boltstore.Open(boltstore.Options{Path: p, Durability: boltstore.None, OnRecover: func(h *redirect.Hop) bool {
		hops = append(hops, h)
		return true
	}})
	if err != nil {
		require.ErrorContains(t, err, p)
		return err
	}
	require.NoError(t, s.Close())
	require.Len(t, hops, int(n), "the file opens as if hops had never been")
	for i, h := range hops {
		require.Equal(t, hop(uint64(i), 0), h)
	}
	return nil
}

func TestDamageIsNamed(t *testing.T) {
	p, good := made(t, 20)
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	for want, change := range map[string]func(about, hops *bolt.Bucket) error{
		"damaged: 19 of 20 records are there": func(_, hops *bolt.Bucket) error { return hops.Delete(key(3)) },
		"damaged: record 20 of 19 is one too many": func(about, _ *bolt.Bucket) error {
			return about.Put([]byte("hops"), append(key(19), about.Get([]byte("hops"))[8:]...))
		},
		"damaged: some of its 20 records are older ones":        func(_, hops *bolt.Bucket) error { return hops.Put(key(3), value(t, hop(3, 1), 3)) },
		`damaged: its "seal" has another checksum`:              func(about, _ *bolt.Bucket) error { return flip(about, "seal") },
		`damaged: its "run" has another checksum`:               func(about, _ *bolt.Bucket) error { return flip(about, "run") },
		`damaged: it does not say its "run"`:                    func(about, _ *bolt.Bucket) error { return about.Delete([]byte("run")) },
		"damaged: record 4 of 20: a key of 8 bytes, a value of": func(_, hops *bolt.Bucket) error { return hops.Put(key(3), []byte("x")) },
		"damaged: record 4 of 20: hop 3 has the checksum":       func(_, hops *bolt.Bucket) error { return hops.Put(key(3), hops.Get(key(4))) },
		"damaged: record 4 of 20: hop 9 is kept as hop 3": func(_, hops *bolt.Bucket) error {
			return hops.Put(key(3), value(t, hop(9, 0), 3))
		},
		"damaged: record 21 of 20": func(_, hops *bolt.Bucket) error { return hops.Put([]byte("long"), []byte("value")) },
	} {
		require.NoError(t, os.WriteFile(p, good, 0o600))
		edit(t, p, func(tx *bolt.Tx) error { return change(tx.Bucket([]byte("about")), tx.Bucket([]byte("hops"))) })
		err := check(t, p, 20)
		require.ErrorIs(t, err, boltstore.ErrDamaged)
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, os.WriteFile(p, good, 0o600))
	edit(t, p, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("hops")) })
	require.ErrorContains(t, check(t, p, 20), "damaged: it has no redirect records")
	require.NoError(t, os.WriteFile(p, good, 0o600))
	db, err := bolt.Open(p, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(*bolt.Tx) error { return nil }))
	require.NoError(t, db.Close())
	require.Regexp(t, `damaged: it is of transaction \d+ and has what it was at \d+$`, check(t, p, 20).Error())
	require.NoError(t, os.WriteFile(p, []byte("not a database"), 0o600))
	require.ErrorIs(t, check(t, p, 20), boltstore.ErrDamaged)
	require.NoError(t, os.WriteFile(p, good, 0o600))
	require.NoError(t, check(t, p, 20))
}

// value is what a file has of a hop, under a serial.
func value(t *testing.T, h *redirect.Hop, serial uint64) []byte {
	encoded, err := h.AppendBinary(nil)
	require.NoError(t, err)
	sum := crc32.Checksum(append(binary.BigEndian.AppendUint64(nil, serial), encoded...), crc32.MakeTable(crc32.Castagnoli))
	return append(binary.LittleEndian.AppendUint32(nil, sum), encoded...)
}

func flip(about *bolt.Bucket, key string) error {
	b := append([]byte(nil), about.Get([]byte(key))...)
	b[3] ^= 1
	return about.Put([]byte(key), b)
}

// A store that was killed has its last batch in one of the two pages of metadata, and
// the one before in the other: without the one page it must not open as the other.
func TestTheLastBatchDoesNotGoWithItsPage(t *testing.T) {
	for page := range int64(2) {
		p := path(t)
		s := open(t, boltstore.Options{Path: p})
		for i := range uint64(3) {
			require.NoError(t, s.Put(hop(i, 0)))
			require.NoError(t, s.Flush(t.Context()))
		}
		require.NoError(t, s.Close())
		flipBit(t, p, 8*(page*int64(os.Getpagesize())+70))
		_, err := boltstore.Open(boltstore.Options{Path: p})
		require.ErrorIs(t, err, boltstore.ErrDamaged)
		require.ErrorContains(t, err, fmt.Sprintf("its page %d is not as it was written, and without it the last changes may be missing", page))
	}
}

// flipBit changes a bit of a file and returns what undoes that.
func flipBit(t testing.TB, path string, bit int64) (undo func()) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], bit/8)
	require.NoError(t, err)
	write := func(c byte) {
		_, err := f.WriteAt([]byte{c}, bit/8)
		require.NoError(t, err)
	}
	write(b[0] ^ 1<<(bit%8))
	return func() {
		write(b[0])
		require.NoError(t, f.Close())
	}
}

// bbolt would go round in such a file, and take memory, until there is none.
func TestPagesAreATree(t *testing.T) {
	p, good := made(t, 40)
	size, native := os.Getpagesize(), binary.NativeEndian
	branch := 2 * size
	for native.Uint16(good[branch+8:]) != 1 {
		branch += size
	}
	id := uint64(branch / size)
	for want, child := range map[string]uint64{
		fmt.Sprintf("damaged: its page %d is there twice", id): id,
		"damaged: its page 0 is none of records":               0,
		fmt.Sprintf("damaged: its page %d of ", 1<<40):         1 << 40,
	} {
		b := append([]byte(nil), good...)
		native.PutUint64(b[branch+16+8:], child)
		require.NoError(t, os.WriteFile(p, b, 0o600))
		require.ErrorContains(t, check(t, p, 40), want)
	}
}

// Records that are there twice, or not in their order, are damage, each as it was though.
func TestRecordsAreInOrder(t *testing.T) {
	const n, header, element = 40, 16, 16
	p, good := made(t, n)
	size, native := os.Getpagesize(), binary.NativeEndian
	leaf := 2 * size
	for native.Uint16(good[leaf+8:]) != 2 || native.Uint32(good[leaf+header+8:]) != 8 { // with keys of 8 bytes
		leaf += size
	}
	first, second := leaf+header, leaf+header+element
	moved := func(b []byte, to, from int) {
		copy(b[to:to+element], good[from:from+element])
		native.PutUint32(b[to+4:], uint32(int(native.Uint32(good[from+4:]))+from-to)) // where its key is, from there
	}
	for name, change := range map[string]func(b []byte){
		"twice":     func(b []byte) { moved(b, second, first) },
		"exchanged": func(b []byte) { moved(b, second, first); moved(b, first, second) },
	} {
		b := append([]byte(nil), good...)
		change(b)
		require.NoError(t, os.WriteFile(p, b, 0o600))
		err := check(t, p, n)
		require.ErrorIs(t, err, boltstore.ErrDamaged, name)
		require.Regexp(t, `damaged: record \d+ of 40 is one too many$`, err.Error(), name)
	}
}

// Of a store that was written to, the pages that count are those of its last batch: of two
// batches the one or the other is in the first page of metadata.
func TestPagesOfTheLastBatchAreATree(t *testing.T) {
	const n = 40
	for batches := range uint64(2) {
		p, _ := made(t, n)
		s := open(t, boltstore.Options{Path: p})
		for i := range batches + 1 {
			require.NoError(t, s.Put(hop(n+i, 0)))
			require.NoError(t, s.Flush(t.Context()))
		}
		require.NoError(t, s.Close())
		good, err := os.ReadFile(p)
		require.NoError(t, err)
		size, native, found := os.Getpagesize(), binary.NativeEndian, 0
		for page := 2 * size; page < len(good); page += size {
			if native.Uint16(good[page+8:]) != 1 { // a branch
				continue
			}
			b := append([]byte(nil), good...)
			native.PutUint64(b[page+16+8:], uint64(page/size))
			require.NoError(t, os.WriteFile(p, b, 0o600))
			if err := check(t, p, n+batches+1); err != nil {
				require.ErrorContains(t, err, "is there twice")
				found++
			}
		}
		require.Equal(t, 1, found)
	}
}

var flips = flag.Int64("flips", 311, "each how manieth bit TestNoBitChangesWhatIsRead flips; 1 takes minutes")

// A file with a bit that is another one reads as it did, or it is damaged. It was
// written to in batches and not made anew, so what bbolt could fall back to is older.
func TestNoBitChangesWhatIsRead(t *testing.T) {
	p := path(t)
	s := open(t, boltstore.Options{Path: p})
	for i := range uint64(24) {
		require.NoError(t, s.Put(hop(i, 0)))
		if i%8 == 7 {
			require.NoError(t, s.Flush(t.Context()))
		}
	}
	require.NoError(t, s.Release(3))
	require.NoError(t, s.Close())
	contents := func() (hops []*redirect.Hop, itself any, err error) {
		itself, err = boltstore.Read(p, func(h *redirect.Hop) error { hops = append(hops, h); return nil })
		return
	}
	hops, itself, err := contents()
	require.NoError(t, err)
	require.Len(t, hops, 23)
	found := 0
	for bit := int64(0); bit < 8*size(t, p); bit += *flips {
		undo := flipBit(t, p, bit)
		gotHops, gotItself, err := contents()
		undo()
		if err != nil {
			require.Regexp(t, "^damaged: |^its format is version ", err.Error())
			found++
			continue
		}
		require.Equal(t, itself, gotItself, "bit %d", bit)
		require.Equal(t, hops, gotHops, "bit %d", bit)
	}
	require.Greater(t, found, 100)
}

// Wherever a file ends, it is whole or damaged.
func TestAShortFileIsDamaged(t *testing.T) {
	const n = 20
	p, good := made(t, n)
	require.NoError(t, os.WriteFile(p, nil, 0o600))
	require.ErrorContains(t, check(t, p, n), "damaged: it is empty, and no file of records ever was; remove it to begin a new one")
	for _, end := range append(ends(len(good)), 1, 16, 80) {
		require.NoError(t, os.WriteFile(p, good[:end], 0o600))
		if err := check(t, p, n); err != nil {
			require.ErrorIs(t, err, boltstore.ErrDamaged, "%d bytes", end)
		}
	}
}

// ends are at each page, and beside it.
func ends(size int) (ends []int) {
	for at := os.Getpagesize(); at < size; at += os.Getpagesize() {
		ends = append(ends, at-1, at, at+1)
	}
	return ends
}

// Whichever byte changes and wherever a file ends: it has every hop as it was, or
// it does not open. Nothing panics.
func TestDamageIsFound(t *testing.T) {
	const n = 40
	p, good := made(t, n)
	rnd := rand.New(rand.NewPCG(1, 1))
	found := 0
	for range 300 {
		b := append([]byte(nil), good...)
		for range 1 + rnd.IntN(3) {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
		if rnd.IntN(4) == 0 {
			b = b[:rnd.IntN(len(b))]
		}
		require.NoError(t, os.WriteFile(p, b, 0o600))
		if err := check(t, p, n); err != nil {
			require.Regexp(t, ": damaged: |: its format is version ", err.Error())
			found++
		}
	}
	require.Greater(t, found, 30)
	t.Logf("%d of 300 were found, the others changed nothing that counts", found)
}
