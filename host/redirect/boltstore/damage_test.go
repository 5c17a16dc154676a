package boltstore_test

import (
	"encoding/binary"
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
		"damaged: 19 of 20 records are there":      func(_, hops *bolt.Bucket) error { return hops.Delete(key(3)) },
		"damaged: record 20 of 19 is one too many": func(about, _ *bolt.Bucket) error { return about.Put([]byte("hops"), key(19)) },
		`damaged: it does not say its "seal"`: func(about, _ *bolt.Bucket) error {
			b := append([]byte(nil), about.Get([]byte("seal"))...)
			b[3] ^= 1
			return about.Put([]byte("seal"), b)
		},
		`damaged: it does not say its "run"`:                    func(about, _ *bolt.Bucket) error { return about.Delete([]byte("run")) },
		"damaged: record 4 of 20: a key of 8 bytes, a value of": func(_, hops *bolt.Bucket) error { return hops.Put(key(3), []byte("x")) },
		"damaged: record 4 of 20: hop 3 has the checksum":       func(_, hops *bolt.Bucket) error { return hops.Put(key(3), hops.Get(key(4))) },
		"damaged: record 4 of 20: hop 9 is kept as hop 3": func(_, hops *bolt.Bucket) error {
			encoded, err := hop(9, 0).AppendBinary(nil)
			require.NoError(t, err)
			sum := crc32.Checksum(append(key(3), encoded...), crc32.MakeTable(crc32.Castagnoli))
			return hops.Put(key(3), append(binary.LittleEndian.AppendUint32(nil, sum), encoded...))
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
	require.NoError(t, os.WriteFile(p, []byte("not a database"), 0o600))
	require.ErrorIs(t, check(t, p, 20), boltstore.ErrDamaged)
	require.NoError(t, os.WriteFile(p, good, 0o600))
	require.NoError(t, check(t, p, 20))
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
