package boltstore_test

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

// A program whose records outlive it, since proxies in other programs have them. What the
// run before left has a reference that this one gives back, at once or when those proxies
// are done.
func Example() {
	folder, err := os.MkdirTemp("", "records")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "records")

	before, err := boltstore.Open(boltstore.Options{Path: file})
	if err != nil {
		log.Fatal(err)
	}
	hop := &redirect.Hop{Serial: before.NewSerial(), AppID: "/usr/bin/curl", Original: netip.MustParseAddrPort("198.51.100.7:443"), Target: netip.MustParseAddrPort("127.0.0.1:8080")}
	if err := before.Put(hop); err != nil {
		log.Fatal(err)
	}
	if err := before.Close(); err != nil { // It ends while that connection goes on.
		log.Fatal(err)
	}

	var left redirect.Records
	store, err := boltstore.Open(boltstore.Options{Path: file, OnRecover: func(h *redirect.Hop) bool {
		fmt.Printf("%s wanted %v and went to %v\n", h.AppID, h.Original, h.Target)
		left = append(left, &redirect.Hop{Serial: h.Serial})
		return true
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close() // Last: the runner has records until it is closed.
	key := store.SealKey()
	runner := policyrun.New(policyrun.Options{Store: store, SealKey: &key})
	defer runner.Close()
	fmt.Println("records:", store.Len())
	redirect.Release(store, left)
	fmt.Println("records:", store.Len())
	// Output:
	// /usr/bin/curl wanted 198.51.100.7:443 and went to 127.0.0.1:8080
	// records: 1
	// records: 0
}
