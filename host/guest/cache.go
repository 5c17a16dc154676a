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
func (c meteredCache) file(pages uint32, f form, wasm []byte) string {
	h := sha256.New()
	for _, n := range []uint32{meter.Version, pages, uint32(f)} {
		h.Write(binary.LittleEndian.AppendUint32(nil, n))
	}
	h.Write(wasm)
	return filepath.Join(c.dir, fmt.Sprintf("metered-%x.wasm", h.Sum(nil)))
}

func (c meteredCache) get(pages uint32, f form, wasm []byte) []byte {
	if c.dir == "" {
		return nil
	}
	b, err := os.ReadFile(c.file(pages, f, wasm))
	if err != nil {
		return nil
	}
	return b
}

func (c meteredCache) put(pages uint32, f form, wasm, metered []byte) {
	if c.dir == "" {
		return
	}
	file, err := os.CreateTemp(c.dir, "metered-")
	if err != nil {
		return
	}
	_, err = file.Write(metered)
	if err2 := file.Close(); err == nil && err2 == nil {
		err = os.Rename(file.Name(), c.file(pages, f, wasm))
	}
	if err != nil {
		os.Remove(file.Name())
	}
}
