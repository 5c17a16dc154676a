package callout

import (
	"encoding/binary"
	"testing"

	"github.com/calloutd/calloutd/sdk/abi"
)

// BenchmarkClassify is what the SDK adds to a decision, natively.
func BenchmarkClassify(b *testing.B) {
	block := make([]byte, abi.BlockSize)
	binary.LittleEndian.PutUint32(block[abi.ReqPresent:], abi.PresentRemote)
	block[abi.ReqIPVersion] = 4
	binary.LittleEndian.PutUint32(block[abi.ReqApp:], abi.RequestHeader)
	binary.LittleEndian.PutUint32(block[abi.ReqApp+4:], uint32(copy(block[abi.RequestHeader:], "/usr/bin/curl")))
	co := Callout(fn(func(*Call) Verdict { return Permit() }))
	b.ReportAllocs()
	for b.Loop() {
		classify(co, block)
	}
}
