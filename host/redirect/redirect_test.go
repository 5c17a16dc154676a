package redirect_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// RS-02, RS-03: the state is a function of the hops and the asking handle.
func TestState(t *testing.T) {
	a, b := &redirect.Hop{Handle: 1, Serial: 1}, &redirect.Hop{Handle: 2, Serial: 2}
	for name, c := range map[string]struct {
		rs   redirect.Records
		h    redirect.Handle
		want redirect.State
		hop  *redirect.Hop
	}{
		"nobody on record":                  {nil, 1, redirect.NotRedirected, nil},
		"the newest hop is mine":            {redirect.Records{a}, 1, redirect.RedirectedBySelf, a},
		"never mine":                        {redirect.Records{a}, 2, redirect.RedirectedByOther, nil},
		"mine, then another's (SC-33)":      {redirect.Records{a, b}, 1, redirect.PreviouslyRedirectedBySelf, a},
		"ping-pong A, B, A (SC-34)":         {redirect.Records{a, b, a}, 1, redirect.RedirectedBySelf, a},
		"B after the ping-pong (SC-34)":     {redirect.Records{a, b, a}, 2, redirect.PreviouslyRedirectedBySelf, b},
		"a new handle of the owner (SC-37)": {redirect.Records{a}, 9, redirect.RedirectedByOther, nil},
	} {
		t.Run(name, func(t *testing.T) {
			st, hop := c.rs.State(c.h)
			require.Equal(t, c.want, st)
			require.Equal(t, c.hop, hop)
		})
	}
}

func sealed(t testing.TB) (*redirect.Sealer, *memstore.Store, []byte, *redirect.Hop) {
	s, store := redirect.NewSealer(), memstore.New(0)
	h := &redirect.Hop{Serial: 5, Handle: 3, FilterID: 9, TargetPID: 11, ProcessID: 12,
		Original: netip.MustParseAddrPort("198.51.100.7:80"), Context: make([]byte, redirect.MaxBlob), Record: make([]byte, redirect.MaxBlob)}
	require.NoError(t, store.Put(h))
	b, err := s.Seal(redirect.Records{h})
	require.NoError(t, err)
	return s, store, b, h
}

// RED-Q-09: one hop fits in 1 KiB whatever the size of its blobs; so do sixteen.
func TestSealedSize(t *testing.T) {
	_, _, b, _ := sealed(t)
	require.LessOrEqual(t, len(b), 1024)
	require.LessOrEqual(t, redirect.SealedLen(redirect.MaxHops), 1024)
}

func TestOpenGivesTheHopBack(t *testing.T) {
	s, store, b, h := sealed(t)
	rs, err := s.Open(b, store)
	require.NoError(t, err)
	require.Same(t, h, rs[0])
	again, err := s.Seal(rs)
	require.NoError(t, err)
	require.Equal(t, b, again, "RED-Q-10")
	redirect.Release(store, rs)
	redirect.Release(store, rs)
	require.Zero(t, store.Len())

	rs, err = s.Open(b, store)
	require.NoError(t, err, "SC-44: the record outlives its connection")
	require.Equal(t, h.Original, rs[0].Original)
	require.Equal(t, h.Handle, rs[0].Handle)
	require.Nil(t, rs[0].Context)
}

// AMB-13, AMB-15: changed, cut or foreign bytes open nothing and hold nothing.
func TestOpenRefusesForgeries(t *testing.T) {
	s, store, b, _ := sealed(t)
	refuse := func(b []byte) {
		t.Helper()
		rs, err := s.Open(b, store)
		require.ErrorIs(t, err, redirect.ErrForged)
		require.Nil(t, rs)
	}
	for i := range b {
		refuse(b[:i])
		x := append([]byte(nil), b...)
		x[i] ^= 0x40
		refuse(x)
	}
	refuse(append(append([]byte(nil), b...), 0))
	_, err := redirect.NewSealer().Open(b, store)
	require.ErrorIs(t, err, redirect.ErrForged, "another engine's record, or one from before a restart")
}

func FuzzOpen(f *testing.F) {
	s, store, b, _ := sealed(f)
	f.Add(b[:len(b)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, x []byte) {
		if string(x) == string(b) {
			return
		}
		if _, err := s.Open(x, store); err == nil {
			t.Fatalf("forged record opened: %x", x)
		}
	})
}

// AMB-15: two sealers of one key open each other's records, and know callouts by the
// same handles; those of another key do not.
func TestAKeyIsAnEngineAgain(t *testing.T) {
	k, other := redirect.NewSealKey(), redirect.NewSealKey()
	b, err := k.Sealer().Seal(redirect.Records{{Serial: 1, Handle: k.Handle("a")}})
	require.NoError(t, err)
	rs, err := k.Sealer().Open(b, memstore.New(0))
	require.NoError(t, err)
	require.Equal(t, k.Handle("a"), rs[0].Handle)
	_, err = other.Sealer().Open(b, memstore.New(0))
	require.ErrorIs(t, err, redirect.ErrForged)
	require.NotEqual(t, k.Handle("a"), k.Handle("b"))
	require.NotEqual(t, k.Handle("a"), other.Handle("a"))
	require.NotZero(t, k.Handle("")>>63, "no engine counts so far")
}

func TestWithNeverShares(t *testing.T) {
	base := make(redirect.Records, 1, 8)
	base[0] = &redirect.Hop{Serial: 1}
	x, y := base.With(&redirect.Hop{Serial: 2}), base.With(&redirect.Hop{Serial: 3})
	require.EqualValues(t, 2, x[1].Serial)
	require.EqualValues(t, 3, y[1].Serial)
}
