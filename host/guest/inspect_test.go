package guest_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/guest/meter"
)

func inspect(t *testing.T, file, config string) *guest.Report {
	t.Helper()
	wasm, err := os.ReadFile(file)
	require.NoError(t, err)
	r, err := guest.Inspect(t.Context(), wasm, []byte(config), guest.Options{CacheDir: cache})
	require.NoError(t, err)
	return r
}

func TestInspectTellsTheLanguage(t *testing.T) {
	for file, want := range map[string]string{
		"testdata/lines.wasm": "C99", "testdata/good.wasm": "",
		"../../sdk/rust/examples/split.wasm": "Rust", "../../sdk/assemblyscript/example/split.wasm": "AssemblyScript",
	} {
		require.Equal(t, want, inspect(t, file, "").Language, file)
	}
}

// Inspect asks as a decision does: a redirect with the configuration, fuel that
// is more for more work.
func TestInspectAsksOnce(t *testing.T) {
	r := inspect(t, "../../sdk/c/example/split.wasm", "proxy 8443 77")
	require.NoError(t, r.Refused)
	require.Equal(t, "permit", r.Canned.Action)
	require.Less(t, r.Canned.Fuel, 2000)
	require.NotZero(t, r.Block)
	require.Equal(t, uint32(3), r.Pages)
	r = inspect(t, "testdata/bad.wasm", "") // port 1
	require.Equal(t, "permit", r.Canned.Action)
}

func TestInspectSaysWhyAModuleIsRefused(t *testing.T) {
	for name, want := range map[string]string{
		"command": "-buildmode=c-shared", "outside": "outside the memory", "imports": "env.open", "unasked": "does not ask for", "startloop": "start function: the fuel budget is spent",
	} {
		r := inspect(t, "testdata/"+name+".wasm", "")
		require.ErrorContains(t, r.Refused, want, name)
		require.Nil(t, r.Canned, name)
		require.NotEmpty(t, r.Sections, name)
	}
	r := inspect(t, "../../sdk/c/example/split.wasm", "")
	require.ErrorContains(t, r.Refused, "the first line is not: proxy PORT PID")
}

func TestInspectNamesCapabilities(t *testing.T) {
	r := inspect(t, "testdata/host.wasm", "")
	require.NoError(t, r.Refused)
	require.NotEmpty(t, append(r.Required, r.Optional...))
	require.Equal(t, []string{"kv", "bit 20"}, inspect(t, "testdata/requires.wasm", "").Required)
}

// Offsets are those of the file: a section's content is there.
func TestInspectPlacesSections(t *testing.T) {
	r := inspect(t, "testdata/lines.wasm", "")
	wasm, err := os.ReadFile("testdata/lines.wasm")
	require.NoError(t, err)
	end := 8
	for _, s := range r.Sections {
		require.Greater(t, s.Offset, end, "after the one before, with its head")
		if s.Custom {
			require.Equal(t, s.Name, string(wasm[s.Offset+1:s.Offset+1+len(s.Name)]))
		}
		end = s.Offset + s.Size
	}
	require.Equal(t, len(wasm), end)
	require.True(t, r.Lines)
	require.True(t, r.Names)
	require.Contains(t, r.Producers, meter.Producer{Field: "language", Name: "C99"})
}

// What is no module is an error with its place.
func TestInspectRefusesWhatIsNoModule(t *testing.T) {
	good := wasm(t, "good")
	for _, c := range []struct {
		wasm []byte
		want string
	}{
		{nil, "wasm byte 0: not a core WebAssembly module"},
		{[]byte("(module)"), "wasm byte 0: not a core WebAssembly module"},
		{good[:len(good)/2], "wasm byte 159: length"},
		{[]byte("\x00asm\x0d\x00\x01\x00"), "component"},
		{make([]byte, guest.MaxModuleSize+1), "the limit is"},
	} {
		_, err := guest.Inspect(t.Context(), c.wasm, nil, guest.Options{})
		require.ErrorContains(t, err, c.want)
	}
}
