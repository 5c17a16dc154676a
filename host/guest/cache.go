package guest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// A meteredCache keeps the metered form of modules that were checked, beside
// their machine code: both are trusted as much as who may write to the folder.
// What goes wrong with it costs time only.
type meteredCache struct{ dir string }

// file is where the form of a module is, by all that it depends on.
func (c meteredCache) file(pages uint32, wasm []byte) string {
	h := sha256.New()
	h.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, meter.Version), pages))
	h.Write(wasm)
	return filepath.Join(c.dir, fmt.Sprintf("metered-%x.wasm", h.Sum(nil)))
}

func (c meteredCache) get(pages uint32, wasm []byte) []byte {
	if c.dir == "" {
		return nil
	}
	b, err := os.ReadFile(c.file(pages, wasm))
	if err != nil {
		return nil
	}
	return b
}

func (c meteredCache) put(pages uint32, wasm, metered []byte) {
	if c.dir == "" {
		return
	}
	f, err := os.CreateTemp(c.dir, "metered-")
	if err != nil {
		return
	}
	_, err = f.Write(metered)
	if err2 := f.Close(); err == nil && err2 == nil {
		err = os.Rename(f.Name(), c.file(pages, wasm))
	}
	if err != nil {
		os.Remove(f.Name())
	}
}
