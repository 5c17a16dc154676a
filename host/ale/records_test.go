package ale_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/redirect"
)

// Records that are set on a closed socket are taken over, and let go.
func TestRecordsOfAClosedSocketAreLetGo(t *testing.T) {
	e, store, _ := enforcer(new(policy))
	hop := &redirect.Hop{Serial: store.NewSerial()}
	require.NoError(t, store.Put(hop))
	s := e.NewSocket(app().in)
	s.Close()
	s.SetRecords(redirect.Records{hop})
	require.Zero(t, store.Len())
}

// A connection that was redirected before has every hop for as long as the side that
// accepts it, whatever the side that made it closes.
func TestEveryHopLivesWithWhoAccepts(t *testing.T) {
	p := &policy{at: map[fwpm.LayerID]func(*fwps.Incoming, *fwps.Decision){fwpm.LayerALEConnectRedirectV4: redirectTo(proxy, 7, 1)}}
	e, store, _ := enforcer(p)
	first := &redirect.Hop{Serial: store.NewSerial(), Handle: 2, AppID: "/bin/first"}
	require.NoError(t, store.Put(first))
	in := app().in
	in.Records = redirect.Records{first}
	s := e.NewSocket(in)
	f, err := s.Connect(t.Context(), origin, fromClient)
	require.NoError(t, err)
	a, err := e.Accept(t.Context(), accepted())
	require.NoError(t, err)
	require.Len(t, a.Records, 2)
	s.Close()
	f.Close()
	require.Equal(t, 2, store.Len())
	a.Close()
	require.Zero(t, store.Len())
}

// A name that one socket's owner says is not another's who began with the same, and can
// be taken back.
func TestAPeerNameIsOfOneSocket(t *testing.T) {
	p := new(policy)
	e, _, _ := enforcer(p)
	in := app().in
	in.Other = map[fwpm.ConditionID]fwp.Value{fwpm.ConditionPeerName: fwp.Blob("both")}
	s := e.NewSocket(in)
	defer s.Close()
	s.SetPeerName("")
	f, err := s.Connect(t.Context(), origin, fromClient)
	require.NoError(t, err)
	defer f.Close()
	for i := range p.seen {
		require.NotContains(t, p.seen[i].Other, fwpm.ConditionPeerName)
	}
	require.Equal(t, "both", in.Other[fwpm.ConditionPeerName].Text)
}
