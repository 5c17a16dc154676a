package policyrun

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policyfile"
)

// Who reads a module again and again while somebody writes it, in place or by a rename, has one of
// the versions, or an error.
func TestAModuleThatIsWrittenIsReadWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "module.wasm")
	versions := [][]byte{bytes.Repeat([]byte("first "), 100_000), bytes.Repeat([]byte("second "), 100_000)}
	require.NoError(t, os.WriteFile(path, versions[0], 0o600))
	var over atomic.Bool
	written := make(chan struct{})
	go func() {
		defer close(written)
		defer over.Store(true)
		for round := range 6 {
			b, name := versions[round%2], path
			if round%3 == 0 {
				name = path + ".new"
			}
			f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
			assert.NoError(t, err)
			for half := range 2 { // The second comes after a module would have settled.
				_, err := f.Write(b[half*len(b)/2 : (half+1)*len(b)/2])
				assert.NoError(t, err)
				time.Sleep(150 * time.Millisecond)
			}
			assert.NoError(t, f.Close())
			if name != path {
				assert.NoError(t, os.Rename(name, path))
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	read := func() ([]byte, error) { return Module(t.Context(), dir, policyfile.Callout{Wasm: "module.wasm"}) }
	for !over.Load() {
		if b, err := read(); err == nil && !bytes.Equal(b, versions[0]) && !bytes.Equal(b, versions[1]) {
			assert.Fail(t, "half a module", "%d bytes", len(b))
			break
		}
	}
	<-written
	b, err := read()
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, versions[1]))
}

// Who does not come to an end is named. A file whose time is to come is read.
func TestAModuleThatIsBeingWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "module.wasm")
	write(t, path, "half")
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(path, later, later))
	b, err := Module(t.Context(), dir, policyfile.Callout{Wasm: "module.wasm"})
	require.NoError(t, err)
	require.Equal(t, "half", string(b))

	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = Module(t.Context(), dir, policyfile.Callout{Wasm: "module.wasm"})
	require.EqualError(t, err, path+" is being written, and so may be half a module: it can be loaded once it is whole")
}
