package ale_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host"
	"github.com/calloutd/calloutd/host/ale"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

type panics struct{ redirect.Store }

func (panics) Retain(uint64) error { panic("the store is broken") }

// It ends the program, or whoever recovers goes on; nobody waits for ever.
func TestAStoreThatPanicsIsHeard(t *testing.T) {
	e := ale.New(ale.Options{Classifier: host.New(host.Options{}), Store: panics{memstore.New(0)}})
	s := e.NewSocket(fwps.Incoming{Protocol: fwps.ProtocolTCP, Local: netip.MustParseAddrPort("127.0.0.1:1000")})
	s.SetRecords(redirect.Records{{Serial: 1}})
	heard := make(chan any, 1)
	go func() {
		defer func() { heard <- recover() }()
		_, _ = s.Connect(t.Context(), netip.MustParseAddrPort("192.0.2.1:80"), func(context.Context, ale.Target) (netip.AddrPort, error) {
			return netip.AddrPort{}, nil
		})
	}()
	select {
	case p := <-heard:
		require.Equal(t, "the store is broken", p)
		s.Close()
	case <-time.After(time.Minute):
		t.Fatal("who connects waits")
	}
}
