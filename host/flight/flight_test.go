package flight_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/journal"
	"github.com/calloutd/calloutd/host/redirect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var header = flight.Header{Policy: "policy.yaml", Source: "a test", Process: 7, Proxies: map[string]netip.AddrPort{"a": netip.MustParseAddrPort("127.0.0.1:61001")}}

// full is an entry with everything.
func full() *flight.Entry {
	return &flight.Entry{
		Time: time.Unix(1_700_000_000, 12345), Protocol: 6, Inbound: true, Program: "/usr/bin/curl", Process: 4711, User: 0, UserKnown: true,
		Groups: []uint32{0, 1000}, Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: netip.MustParseAddrPort("[fe80::1%eth0]:80"), Host: "example.test",
		Records: redirect.Records{{Serial: 3, Callout: "web", Original: netip.MustParseAddrPort("192.0.2.1:80"),
			Target: netip.MustParseAddrPort("127.0.0.1:8080"), AppID: "/usr/bin/curl", Record: []byte{1, 2}, Context: []byte("secret")}},
		Outcome: &flight.Outcome{Action: "redirect", Destination: "proxy:a", Layer: "ALE_CONNECT_REDIRECT_V6", Filter: 9, FilterName: "web", Callout: "web",
			Rule: "CR-14", Why: "because", Context: []byte("secret"), Record: []byte{1, 2}},
		Answers: []journal.Answer{{Callout: "web", Call: "wall", Result: 1 << 63}, {Callout: "web", Call: "random", Data: []byte("secret")}},
	}
}

func write(t *testing.T, path string, h flight.Header, entries ...*flight.Entry) {
	t.Helper()
	w, err := flight.Append(path, h)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, w.Write(e))
	}
	require.NoError(t, w.Close())
}

func read(t require.TestingT, b []byte) (entries []*flight.Entry, r *flight.Reader, err error) {
	r = flight.NewReader(bytes.NewReader(b))
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries, r, nil
		}
		if err != nil {
			return entries, r, err
		}
		entries = append(entries, e)
	}
}

func file(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	write(t, path, header, full(), new(flight.Entry))
	got, r, err := read(t, file(t, path))
	require.NoError(t, err)
	require.Equal(t, []*flight.Entry{full(), {}}, got)
	require.Equal(t, header, r.Header())
	require.False(t, r.Torn())
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, "-rw-------", info.Mode().String(), "it may hold secrets")
	}
}

// A later version may have fields of other types.
func TestWhatIsNotKnownIsLeftOut(t *testing.T) {
	got, _, err := read(t, part(t, "CFLT\x01\x12\x07\x10\x06\x15\x01\x00\x00\x00"))
	require.NoError(t, err)
	require.Equal(t, []*flight.Entry{{Protocol: 6}}, got)
}

func TestAFileIsContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	write(t, path, header, full())
	other := header
	other.Policy = "other.yaml"
	write(t, path, other, full(), full())
	got, r, err := read(t, file(t, path))
	require.NoError(t, err)
	require.Len(t, got, 3)
	require.Equal(t, other, r.Header())
}

func TestFilesCanBePutTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	write(t, path, header, full())
	b := file(t, path)
	got, _, err := read(t, append(b[:len(b):len(b)], b...))
	require.NoError(t, err)
	require.Len(t, got, 2)
}

func TestAFileThatIsCutOffAnywhereIsReadUpToThereAndContinued(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.flight")
	write(t, path, header, full())
	one := len(file(t, path))
	write(t, path, header, full(), full())
	b := file(t, path)
	for cut := one; cut < len(b); cut++ {
		got, r, err := read(t, b[:cut])
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), 1)
		require.Equal(t, cut > one, r.Torn(), "cut at %d", cut)
	}
	torn := filepath.Join(dir, "torn.flight")
	require.NoError(t, os.WriteFile(torn, b[:len(b)-3], 0o600))
	write(t, torn, header, full())
	got, r, err := read(t, file(t, torn))
	require.NoError(t, err)
	require.Len(t, got, 2, "the torn part is gone, the new one is there")
	require.False(t, r.Torn())
}

// A file that the system does not give to its end is neither torn nor damaged: what is behind
// that place would be taken away.
func TestAFileThatCannotBeReadIsNotTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	write(t, path, header, full())
	write(t, path, header, full())
	b, disk := file(t, path), errors.New("the disk fails")
	for n := range len(b) + 1 {
		r := flight.NewReader(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(disk)))
		var err error
		for err == nil {
			_, err = r.Next()
		}
		require.ErrorIs(t, err, disk, "after %d bytes", n)
		require.NotErrorIs(t, err, flight.ErrCorrupt, "after %d bytes", n)
		require.Contains(t, err.Error(), "before byte ")
		require.False(t, r.Torn(), "after %d bytes", n)
	}
}

func TestWhatIsNoFlightFileIsRefusedAndKept(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte("hello, world"))
	require.NoError(t, w.Close())
	var newer bytes.Buffer
	w = gzip.NewWriter(&newer)
	_, _ = w.Write([]byte("CFLT\x09"))
	require.NoError(t, w.Close())
	for want, b := range map[string][]byte{
		"gzip: invalid header":                                    []byte("version: 1\nfilters: []\n"),
		"it is compressed, but no flight file":                    z.Bytes(),
		"version 9 of the format, this program reads 1":           newer.Bytes(),
		"not of a flight file: a part ends within a message":      part(t, "CFLT\x01\x0a\x05ab"),
		"byte 26: not of a flight file: a part ends within":       part(t, "CF"),
		"a message of 1073741824 bytes, at most 4194304 are read": part(t, "CFLT\x01\x12\x80\x80\x80\x80\x04"),
		"field 1 is no message":                                   part(t, "CFLT\x01\x08\x01"),
	} {
		path := filepath.Join(t.TempDir(), "other")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		_, err := flight.Append(path, header)
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, flight.ErrCorrupt)
		require.Equal(t, b, file(t, path))
	}
}

func TestAFileThatCannotBeOpenedIsToldOf(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "none", "a.flight")} {
		_, err := flight.Append(path, header)
		require.ErrorContains(t, err, path)
	}
}

func part(t *testing.T, text string) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return z.Bytes()
}

func TestSecretsAreLeftOut(t *testing.T) {
	every, err := flight.ParseMask(flight.Masks)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "a.flight")
	h := header
	h.Masked = every
	e := full()
	e.Program, e.Records[0].AppID = `C:\Users\secret\app.exe`, "/home/secret/app"
	e.Host = "secret.test"
	write(t, path, h, e)
	z, err := gzip.NewReader(bytes.NewReader(file(t, path)))
	require.NoError(t, err)
	raw, err := io.ReadAll(z)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "secret")
	got, r, err := read(t, file(t, path))
	require.NoError(t, err)
	require.Equal(t, "app.exe", got[0].Program)
	require.False(t, got[0].UserKnown)
	require.Equal(t, every, r.Header().Masked)
	require.Equal(t, []byte("secret"), e.Outcome.Context, "what was given is not changed")

	_, err = flight.ParseMask([]string{"blobs", "everything"})
	require.EqualError(t, err, `"everything": expected some of blobs, answers, programs, users, hosts`)
}

// Each of the masks takes out what it names, and leaves the rest.
func TestAMaskLeavesTheRest(t *testing.T) {
	for name, hide := range map[string]func(e *flight.Entry){
		"blobs": func(e *flight.Entry) {
			e.Outcome.Context, e.Outcome.Record, e.Records[0].Context, e.Records[0].Record = nil, nil, nil, nil
		},
		"answers":  func(e *flight.Entry) { e.Answers = nil },
		"programs": func(e *flight.Entry) { e.Program, e.Records[0].AppID = "curl", "curl" },
		"users":    func(e *flight.Entry) { e.UserKnown, e.Groups = false, nil },
		"hosts":    func(e *flight.Entry) { e.Host = "" },
	} {
		mask, err := flight.ParseMask([]string{name})
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "a.flight")
		undecided, want := full(), []*flight.Entry{full(), full()}
		undecided.Outcome = nil
		for _, e := range want {
			hide(e)
		}
		want[1].Outcome = nil
		write(t, path, flight.Header{Masked: mask}, full(), undecided)
		got, _, err := read(t, file(t, path))
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
}

// A message that is not one is told, wherever it is within others.
func TestBrokenMessagesAreCorrupt(t *testing.T) {
	const header, entry = "\x0a", "\x12"
	message := func(tag, inner string) string { return tag + string(rune(len(inner))) + inner }
	for name, text := range map[string]string{
		"a size that is missing":        entry,
		"a size that is no number":      entry + strings.Repeat("\xff", 11),
		"a field that is cut off":       message(entry, "\x10"),
		"a tag that is cut off":         message(entry, "\x80"),
		"a fixed field that is cut off": message(entry, "\x0d\x01"),
		"a local address":               message(entry, message("\x42", "x")),
		"a remote address":              message(entry, message("\x4a", "x")),
		"a hop":                         message(entry, message("\x5a", "x")),
		"an outcome":                    message(entry, message("\x62", "\x80")),
		"an answer":                     message(entry, message("\x6a", "\x80")),
		"a process":                     message(entry, "\x28\xff\xff\xff\xff\x7f"),
		"a process of 33 bits":          message(entry, "\x28\x80\x80\x80\x80\x10"),
		"a user":                        message(entry, "\x30\x00"),
		"a user of 33 bits":             message(entry, "\x30\x81\x80\x80\x80\x10"),
		"a group":                       message(entry, "\x38\xff\xff\xff\xff\x7f"),
		"a proxy":                       message(header, message("\x1a", "\x80")),
		"the address of a proxy":        message(header, message("\x1a", message("\x12", "x"))),
	} {
		_, _, err := read(t, part(t, "CFLT\x01"+text))
		require.ErrorIs(t, err, flight.ErrCorrupt, name)
	}
	hop, err := new(redirect.Hop).AppendBinary(nil)
	require.NoError(t, err)
	hops := strings.Repeat(message("\x5a", string(hop)), redirect.MaxHops+1)
	_, _, err = read(t, part(t, "CFLT\x01"+entry+string(binary.AppendUvarint(nil, uint64(len(hops))))+hops))
	require.ErrorIs(t, err, flight.ErrCorrupt)
	require.ErrorContains(t, err, "more than 16 hops")
	answers := strings.Repeat(message("\x6a", ""), 1<<16+1)
	_, _, err = read(t, part(t, "CFLT\x01"+entry+string(binary.AppendUvarint(nil, uint64(len(answers))))+answers))
	require.ErrorIs(t, err, flight.ErrCorrupt)
	require.ErrorContains(t, err, "more than 65536 answers")
	for at, want := range map[int]string{10: "flate: corrupt input", -8: "gzip: invalid checksum"} {
		b := part(t, "CFLT\x01")
		b[(at+len(b))%len(b)] ^= 7
		_, _, err := read(t, b)
		require.ErrorIs(t, err, flight.ErrCorrupt)
		require.ErrorContains(t, err, want)
	}
}

func TestManyWriteAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	w, err := flight.Append(path, header)
	require.NoError(t, err)
	const writers, each = 8, 2000 // more than one part
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if err := w.Write(full()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, w.Close())
	require.ErrorIs(t, w.Write(full()), os.ErrClosed)
	got, _, err := read(t, file(t, path))
	require.NoError(t, err)
	require.Len(t, got, writers*each)
}

// lost is a disk that fails at the end.
type lost struct{ bytes.Buffer }

func (*lost) Close() error { return errors.New("lost") }

// noRoom is a disk without room.
type noRoom struct{}

func (noRoom) Write([]byte) (int, error) { return 0, errors.New("no room") }
func (noRoom) Close() error              { return nil }

func TestAFileThatCannotBeWrittenIsToldOf(t *testing.T) {
	w := flight.NewWriter(noRoom{}, header)
	require.NoError(t, w.Write(full()))
	require.EqualError(t, w.Close(), "no room")
	require.ErrorIs(t, w.Close(), os.ErrClosed)
	require.EqualError(t, flight.NewWriter(new(lost), header).Close(), "lost")
	synctest.Test(t, func(t *testing.T) {
		w := flight.NewWriter(noRoom{}, header)
		require.NoError(t, w.Write(full()))
		time.Sleep(time.Second)
		synctest.Wait()
		require.EqualError(t, w.Write(full()), "no room", "a later entry says it")
		require.EqualError(t, w.Close(), "no room")
	})
}

// halfway is a disk that has no room for a while.
type halfway struct {
	bytes.Buffer
	full chan struct{}
}

func (h *halfway) Write(b []byte) (int, error) {
	if _, was := <-h.full; !was {
		return h.Buffer.Write(b)
	}
	close(h.full)
	n, _ := h.Buffer.Write(b[:len(b)/2])
	return n, errors.New("no room")
}

func (*halfway) Close() error { return nil }

// What follows half a part could not be read, nor the file be continued.
func TestNothingFollowsAPartThatWasNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &halfway{full: make(chan struct{})}
		w, large := flight.NewWriter(disk, header), full()
		large.Records[0].Record = make([]byte, 4096)
		for range 100 { // A part is being written, and one waits for it.
			require.NoError(t, w.Write(large))
		}
		synctest.Wait()
		disk.full <- struct{}{}
		require.EqualError(t, w.Close(), "no room")
		path := filepath.Join(t.TempDir(), "a.flight")
		require.NoError(t, os.WriteFile(path, disk.Bytes(), 0o600))
		_, r, err := read(t, file(t, path))
		require.NoError(t, err)
		require.True(t, r.Torn())
		write(t, path, header, full())
	})
}

// A callout can be told more than a file holds for one connection: that is there all the
// same, and what comes after it.
func TestWhatACalloutWasToldDoesNotSpoilTheFile(t *testing.T) {
	random := func(n, size int) []journal.Answer {
		return slices.Repeat([]journal.Answer{{Callout: "web", Call: "random", Data: make([]byte, size)}}, n)
	}
	for _, c := range []struct {
		answers []journal.Answer
		kept    int
	}{
		{random(1, flight.MaxMessage), 0},
		{random(3, flight.MaxMessage/2), 1},
		{random(1<<16+1, 1), 1 << 16},
		{slices.Concat(random(1, 1), random(1, flight.MaxMessage), random(1, 2)), 1}, // The next one would be taken for the one that is missing.
	} {
		path := filepath.Join(t.TempDir(), "a.flight")
		e := full()
		e.Answers = c.answers
		write(t, path, header, e, full())
		got, _, err := read(t, file(t, path))
		require.NoError(t, err)
		require.Len(t, got, 2)
		require.Equal(t, full().Outcome, got[0].Outcome)
		require.Equal(t, c.answers[:c.kept], append([]journal.Answer{}, got[0].Answers...))
		require.Equal(t, full(), got[1])
		write(t, path, header, full())
	}
}

// An entry that nobody could read is refused, and the others are there.
func TestAnEntryThatCannotBeReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	w, err := flight.Append(path, header)
	require.NoError(t, err)
	for _, spoil := range []func(*flight.Entry){
		func(e *flight.Entry) { e.Host = strings.Repeat("x", flight.MaxMessage) },
		func(e *flight.Entry) { e.Records[0].AppID = strings.Repeat("x", 1<<16) },
		func(e *flight.Entry) { e.Records = slices.Repeat(e.Records, redirect.MaxHops+1) },
	} {
		e := full()
		spoil(e)
		require.ErrorIs(t, w.Write(e), redirect.ErrTooLarge)
		require.NoError(t, w.Write(full()))
	}
	most := full()
	most.Records = slices.Repeat(most.Records, redirect.MaxHops)
	require.NoError(t, w.Write(most))
	require.NoError(t, w.Close())
	got, _, err := read(t, file(t, path))
	require.NoError(t, err)
	require.Equal(t, []*flight.Entry{full(), full(), full(), most}, got)
}

// An entry is in the file a second later, and much is there at once.
func TestWhatIsWrittenIsSoonInTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b buffer
		w := flight.NewWriter(&b, header)
		require.NoError(t, w.Write(full()))
		time.Sleep(time.Second)
		synctest.Wait()
		got, _, err := read(t, b.Bytes())
		require.NoError(t, err)
		require.Len(t, got, 1)

		one, large := b.Len(), full()
		large.Records[0].Record = make([]byte, 4096)
		for range 64 {
			require.NoError(t, w.Write(large))
		}
		synctest.Wait()
		require.Greater(t, b.Len(), one)
		require.NoError(t, w.Close())
	})
}

func TestRandomEntriesAreReadAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := func(n int, what string) []byte {
			b := rapid.SliceOfN(rapid.Byte(), 0, n).Draw(t, what)
			if len(b) == 0 {
				return nil
			}
			return b
		}
		e := &flight.Entry{Protocol: rapid.Byte().Draw(t, "protocol"), Program: rapid.String().Draw(t, "program"), Process: rapid.Uint32().Draw(t, "process"),
			UserKnown: true, User: rapid.Uint32().Draw(t, "user"), Time: time.Unix(0, rapid.Int64Min(1).Draw(t, "time"))}
		if a, ok := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr")); ok {
			e.Remote = netip.AddrPortFrom(a, rapid.Uint16().Draw(t, "port"))
		}
		e.Outcome = &flight.Outcome{Why: rapid.String().Draw(t, "why"), Filter: rapid.Uint64().Draw(t, "filter"), Context: bytesOf(40, "context")}
		e.Answers = []journal.Answer{{Call: "random", Data: bytesOf(40, "data"), Result: rapid.Uint64().Draw(t, "result")}}
		var b buffer
		w := flight.NewWriter(&b, header)
		require.NoError(t, w.Write(e))
		require.NoError(t, w.Close())
		got, _, err := read(t, b.Bytes())
		require.NoError(t, err)
		require.Equal(t, e.Time.UnixNano(), got[0].Time.UnixNano())
		got[0].Time = e.Time
		require.Equal(t, e, got[0])
	})
}

type buffer struct{ bytes.Buffer }

func (*buffer) Close() error { return nil }

// FuzzReader looks for files that make the reader fail or keep too much.
func FuzzReader(f *testing.F) {
	var b buffer
	w := flight.NewWriter(&b, header)
	if err := errors.Join(w.Write(full()), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		_, _, err := read(t, file)
		if err != nil {
			require.ErrorIs(t, err, flight.ErrCorrupt)
		}
	})
}

// FuzzEntry looks for messages within a right part that make the reader fail, and
// for those that are not read again as they were.
func FuzzEntry(f *testing.F) {
	f.Add([]byte{0x12, 4, 0x10, 6, 0x18, 1})
	f.Fuzz(func(t *testing.T, messages []byte) {
		entries, _, err := read(t, part(t, "CFLT\x01"+string(messages)))
		if err != nil {
			require.ErrorIs(t, err, flight.ErrCorrupt)
			return
		}
		var b buffer
		w := flight.NewWriter(&b, header)
		for _, e := range entries {
			require.NoError(t, w.Write(e))
		}
		require.NoError(t, w.Close())
		again, _, err := read(t, b.Bytes())
		require.NoError(t, err)
		require.Equal(t, len(entries), len(again))
	})
}
