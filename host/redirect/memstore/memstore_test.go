package memstore_test

import (
	"testing"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
	"github.com/calloutd/calloutd/host/redirect/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(limit int) redirect.Store { return memstore.New(limit) })
}
