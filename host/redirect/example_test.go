package redirect_test

import (
	"errors"
	"fmt"
	"log"
	"net/netip"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// What a callout is told of a connection follows from the records that it has: whether
// it was redirected, by this callout or another one, and before.
func ExampleRecords_State() {
	const mine, theirs = redirect.Handle(1), redirect.Handle(2)
	var none redirect.Records
	once := none.With(&redirect.Hop{Serial: 1, Handle: mine, Original: netip.MustParseAddrPort("198.51.100.7:443")})
	again := once.With(&redirect.Hop{Serial: 2, Handle: theirs})
	for _, rs := range []redirect.Records{none, once, again} {
		me, _ := rs.State(mine)
		them, _ := rs.State(theirs)
		fmt.Printf("%d hops: I am told %v, they %v\n", len(rs), me, them)
	}
	// Output:
	// 0 hops: I am told not-redirected, they not-redirected
	// 1 hops: I am told redirected-by-self, they redirected-by-other
	// 2 hops: I am told previously-redirected-by-self, they redirected-by-self
}

// A proxy carries records from one socket to another as bytes that it can neither read
// nor write.
func ExampleSealer() {
	store, sealer := memstore.New(0), redirect.NewSealer()
	hop := &redirect.Hop{Serial: store.NewSerial(), Handle: 1, Original: netip.MustParseAddrPort("198.51.100.7:443"), Record: []byte("mine")}
	if err := store.Put(hop); err != nil {
		log.Fatal(err)
	}
	sealed, err := sealer.Seal(redirect.Records{hop})
	if err != nil {
		log.Fatal(err)
	}
	opened, err := sealer.Open(sealed, store)
	fmt.Printf("%v %s %v\n", opened.Last().Original, opened.Last().Record, err)
	redirect.Release(store, opened) // The socket that had them is closed.

	sealed[len(sealed)-1] ^= 1
	_, err = sealer.Open(sealed, store)
	fmt.Println(errors.Is(err, redirect.ErrForged))
	_, err = redirect.NewSealer().Open(sealed, store)
	fmt.Println(errors.Is(err, redirect.ErrForged))
	// Output:
	// 198.51.100.7:443 mine <nil>
	// true
	// true
}
