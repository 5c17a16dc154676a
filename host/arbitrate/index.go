package arbitrate

import "github.com/calloutd/calloutd/host/internal/trie"

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
// With its key it is one line of the cache.
type bucket struct {
	// The list is in order, the sublayers mixed; with a node, it is the first of those
	// that no further way leads to. Its first filter is here, so that most lists cost no
	// miss of their own. The others are never changed in place. A slice would be longer.
	head entry
	more *entry
	node *node
	most code  // no filter here or below is heavier; deletions leave it too high
	n    uint8 // filters in the list, no more than a chunk
	subs uint8 // the sublayers of the filters that are or were here
}

// A node is the inside of a bucket with many filters. What a search needs of it comes
// first, in one line of the cache.
type node struct {
	most    [together]code // as in the bucket, for each sublayer
	lengths lengths
	after   code   // the weight of the first in rest
	long    bool   // there is one
	ways    wayset // that lead anywhere

	owner    *trie.Edit
	counts   [ways]uint32 // how many filters each way leads to
	prefixes []length     // how many prefixes of each length
	rest     list         // what follows the bucket's list
}

// A length is how many prefixes of a length there are, a prefix counted once for
// each of its filters.
type length struct {
	bits uint8
	n    uint32
}

// Lengths are the lengths of prefixes, as bits, the longest first.
type lengths [3]uint64

const longest = 128

func (l *lengths) set(bits uint8) { l[(longest-bits)/64] |= 1 << ((longest - bits) % 64) }

func (l *lengths) clear(bits uint8) { l[(longest-bits)/64] &^= 1 << ((longest - bits) % 64) }

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
	if b.n > 0 {
		f(b.head.f)
	}
	for _, e := range b.others() {
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
