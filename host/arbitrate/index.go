package arbitrate

import (
	"unsafe"

	"github.com/calloutd/calloutd/host/internal/trie"
)

// together is how many sublayers share an index, so that one walk serves them all.
const together = 8

// An index finds the heaviest matching filter of each sublayer among many filters
// without looking at each.
//
// It is a tree of buckets. A bucket with few filters is a list. One with more sends
// each filter down the most selective way that its conditions allow: to the bucket
// of the program that it names, of the prefix, of the port. All buckets but the root
// are in one table, by a hash of the way to them, so that a search asks for all that
// it needs of a node at once. Hashes that are equal make two buckets one: the index
// only narrows the search, and each filter found is tested whole.
//
// An index is a value: an edited one shares what did not change with the one before.
type index struct {
	root  bucket
	table trie.Map[bucket]
	seen  *sieve // of the table; nil: it is empty
	noted int    // keys that the sieve was told of
}

// A bucket is where a way leads: to a list, and to a node if there are many filters.
type bucket struct {
	// The first of the filters in order, the sublayers mixed; with a node, of the first
	// of those that no further way leads to. Never changed in place. A slice would be
	// longer, and a bucket and its key are half a line of the cache.
	first *entry
	node  *node
	most  code  // no filter here or below is heavier; deletions leave it too high
	n     uint8 // filters in the list, no more than a chunk
	subs  uint8 // the sublayers of the filters that are or were here
}

func (b *bucket) list() []entry { return unsafe.Slice(b.first, b.n) }

func (b *bucket) set(l []entry) { b.first, b.n = unsafe.SliceData(l), uint8(len(l)) }

// A node is the inside of a bucket with many filters.
type node struct {
	owner   *trie.Edit
	most    [together]code // as in the bucket, for each sublayer
	ways    [ways]uint32   // how many filters each way leads to
	lengths []length       // of the prefixes, the longest first
	rest    list           // what follows the bucket's list
}

// A length is how many prefixes of a length there are, a prefix counted once for
// each of its filters.
type length struct {
	bits uint8
	n    uint32
}

// An entry is a filter in a list, with what most filters say at hand: to look at
// the filter itself costs a cache miss.
type entry struct {
	f *filter
	brief
}

const (
	// aFew filters are looked at one by one: an index costs more.
	aFew = 24
	// manyValues for one field are not worth as many buckets.
	manyValues = 16
	// portBin is the width of the bins for port ranges.
	portBin = 1024
)

// each calls f for every filter, for some more than once.
func (x *index) each(f func(*filter)) {
	x.root.each(f)
	for _, b := range x.table.All() {
		b.each(f)
	}
}

func (b *bucket) each(f func(*filter)) {
	for _, e := range b.list() {
		f(e.f)
	}
	if b.node == nil {
		return
	}
	for _, chunk := range b.node.rest {
		for i := range chunk {
			f(chunk[i].f)
		}
	}
}
