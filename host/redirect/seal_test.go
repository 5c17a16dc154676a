package redirect_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/memstore"
)

// known is a key that is the same every time.
func known() (k redirect.SealKey) {
	for i := range k {
		k[i] = byte(i + 1)
	}
	return k
}

// SC-44: what a record says of hops whose connections are gone, for as many as there may be.
func TestARecordSaysMostOfHopsThatAreGone(t *testing.T) {
	var rs redirect.Records
	for i := range uint32(redirect.MaxHops) {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), uint16(1000+i))
		switch i % 3 {
		case 1:
			to = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::7"), uint16(1000+i))
		case 2: // AMB-25: a family stays what it is.
			to = netip.AddrPortFrom(netip.MustParseAddr("::ffff:198.51.100.7"), uint16(1000+i))
		}
		rs = append(rs, &redirect.Hop{Serial: 1<<40 + uint64(i), Handle: redirect.Handle(i + 1), FilterID: 1<<41 + uint64(i), TargetPID: 1<<20 + i, ProcessID: 1<<21 + i, Original: to})
	}
	s := redirect.NewSealer()
	for n := 1; n <= len(rs); n++ {
		b, err := s.Seal(rs[:n])
		require.NoError(t, err)
		require.Len(t, b, redirect.SealedLen(n))
		got, err := s.Open(b, memstore.New(0))
		require.NoError(t, err)
		require.Equal(t, rs[:n], got)
	}
	_, err := s.Seal(append(rs, rs[0]))
	require.ErrorIs(t, err, redirect.ErrTooManyHops)
	none, err := s.Seal(nil)
	require.NoError(t, err)
	_, err = s.Open(none, memstore.New(0))
	require.ErrorContains(t, err, "48 bytes is no possible length")
}

// A key outlives the program: what one version sealed another one opens, and each callout has
// the handle that it had.
func TestSealedFormStaysWhatItIs(t *testing.T) {
	b, err := known().Sealer().Seal(redirect.Records{
		{Serial: 0x0102030405060708, Handle: 3, FilterID: 9, TargetPID: 11, ProcessID: 12, Original: netip.MustParseAddrPort("198.51.100.7:80")},
		{Serial: 6, Handle: 4, Original: netip.MustParseAddrPort("[2001:db8::7]:443")}})
	require.NoError(t, err)
	require.Equal(t, ""+
		"435252310100"+"0200"+"a0000000"+"21222324"+
		"0300000000000000"+"0807060504030201"+"0900000000000000"+"0b000000"+"0c000000"+"00000000000000000000ffffc6336407"+"5000"+"0400"+"00000000"+
		"0400000000000000"+"0600000000000000"+"0000000000000000"+"00000000"+"00000000"+"20010db8000000000000000000000007"+"bb01"+"0600"+"00000000",
		hex.EncodeToString(b[:len(b)-sha256.Size]))
	require.EqualValues(t, uint64(0xbb81e380eecd22c3), known().Handle("web"))
}

// What a program of another version sealed with the key is none of ours where its header says so.
func TestOpenRefusesOtherForms(t *testing.T) {
	key := known()
	b, err := key.Sealer().Seal(redirect.Records{{Serial: 5, Handle: 3}})
	require.NoError(t, err)
	body := b[:len(b)-sha256.Size]
	reseal := func(change func(b []byte)) []byte {
		x := append([]byte(nil), body...)
		change(x)
		m := hmac.New(sha256.New, key[:32])
		m.Write(x)
		return m.Sum(x)
	}
	_, err = key.Sealer().Open(reseal(func([]byte) {}), memstore.New(0))
	require.NoError(t, err)
	for name, change := range map[string]func(b []byte){
		"magic":   func(b []byte) { b[0]++ },
		"version": func(b []byte) { b[4]++ },
		"hops":    func(b []byte) { b[6]++ },
		"no hops": func(b []byte) { b[6] = 0 },
		"length":  func(b []byte) { binary.LittleEndian.PutUint32(b[8:], uint32(len(b))) },
	} {
		_, err := key.Sealer().Open(reseal(change), memstore.New(0))
		require.ErrorIs(t, err, redirect.ErrForged, name)
		require.ErrorContains(t, err, "header does not fit", name)
	}
}

// A key outlives a store in memory, whose serials begin anew: what was sealed before is
// not what another connection's hop of the same serial says.
func TestAnotherHopOfTheSerialIsNotTheOneThatWasSealed(t *testing.T) {
	was := redirect.Hop{Serial: 5, Handle: 3, ProcessID: 12, Original: netip.MustParseAddrPort("[fe80::1%eth0]:80"), Context: []byte("was")}
	s := known().Sealer()
	b, err := s.Seal(redirect.Records{&was})
	require.NoError(t, err)
	for name, change := range map[string]func(*redirect.Hop){
		"":            func(*redirect.Hop) {},
		"filter":      func(h *redirect.Hop) { h.FilterID = 1 }, // SC-48
		"serial":      func(h *redirect.Hop) { h.Serial = 6 },
		"handle":      func(h *redirect.Hop) { h.Handle = 4 },
		"process":     func(h *redirect.Hop) { h.ProcessID = 13 },
		"destination": func(h *redirect.Hop) { h.Original = netip.MustParseAddrPort("[fe80::2%eth0]:80") },
		"port":        func(h *redirect.Hop) { h.Original = netip.MustParseAddrPort("[fe80::1%eth0]:81") },
	} {
		has := was
		change(&has)
		store := answers{memstore.New(0), &has, nil}
		require.NoError(t, store.Put(&redirect.Hop{Serial: 5}))
		rs, err := s.Open(b, store)
		require.NoError(t, err)
		if name == "" || name == "filter" {
			require.Equal(t, redirect.Records{&has}, rs, name)
		} else {
			require.Nil(t, rs.Last().Context, name)
			require.Equal(t, "[fe80::1]:80", rs.Last().Original.String(), name)
		}
		redirect.Release(store, rs)
		require.Equal(t, 1, store.Len(), "%s: a holder is left", name)
	}
	rs, err := s.Open(b, answers{memstore.New(0), nil, nil})
	require.NoError(t, err)
	require.EqualValues(t, 3, rs.Last().Handle)
}

// Without a reference nobody can give one back.
func TestOpenNeedsTheStore(t *testing.T) {
	s := redirect.NewSealer()
	b, err := s.Seal(redirect.Records{{Serial: 5, Handle: 3}})
	require.NoError(t, err)
	_, err = s.Open(b, answers{memstore.New(0), nil, redirect.ErrUnavailable})
	require.ErrorIs(t, err, redirect.ErrUnavailable)
	require.ErrorContains(t, err, "hop 5")
}

// What an Open that fails has taken until then it gives back.
func TestAnOpenThatFailsHoldsNothing(t *testing.T) {
	s, store := redirect.NewSealer(), memstore.New(0)
	first, second := redirect.Hop{Serial: 5, Handle: 3}, redirect.Hop{Serial: 6, Handle: 3}
	require.NoError(t, store.Put(&first))
	b, err := s.Seal(redirect.Records{&first, &second})
	require.NoError(t, err)
	_, err = s.Open(b, failsAt{store, 6})
	require.ErrorIs(t, err, redirect.ErrUnavailable)
	require.ErrorContains(t, err, "hop 6")
	require.NoError(t, store.Release(5))
	require.Zero(t, store.Len())
}

// A failsAt is a store that does not say what it has of one serial.
type failsAt struct {
	redirect.Store
	serial uint64
}

func (f failsAt) Acquire(serial uint64) (*redirect.Hop, error) {
	if serial == f.serial {
		return nil, redirect.ErrUnavailable
	}
	return f.Store.Acquire(serial)
}

// An answers is a store that says something else of its hops.
type answers struct {
	redirect.Store
	hop *redirect.Hop
	err error
}

func (a answers) Acquire(serial uint64) (*redirect.Hop, error) {
	_, _ = a.Store.Acquire(serial)
	return a.hop, a.err
}
