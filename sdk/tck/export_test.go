package tck

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/sdk/abi"
)

// Decide asks a guest that is no mirror about connections to two ports, one after the
// other, and returns the packed answer and the reason of each.
func Decide(t *testing.T, wasm []byte, ports [2]uint16) (packed [2]uint64, reasons [2]string) {
	g := newKit(t, wasm, Options{}).start(t, 0)
	if g.mod.ExportedFunction(abi.ExportInit) != nil {
		require.Zero(t, int32(g.configure(nil)))
	}
	for i, port := range ports {
		b := g.block()
		clear(b)
		request{version: 4, protocol: 6, port: port}.write(b)
		packed[i] = g.call(abi.ExportClassify)
		reasons[i] = g.reason()
	}
	return packed, reasons
}
