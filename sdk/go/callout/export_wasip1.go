package callout

import (
	"runtime"
	"unsafe"

	"github.com/calloutd/calloutd/sdk/abi"
)

var (
	memory [abi.BlockSize + abi.BlockAlign]byte
	block  = aligned()
)

func aligned() []byte {
	skip := -uintptr(unsafe.Pointer(&memory)) % abi.BlockAlign
	return memory[skip : skip+abi.BlockSize]
}

//go:wasmexport callout_abi_v1
func exportMarker() int32 { return int32(uintptr(unsafe.Pointer(unsafe.SliceData(block)))) }

//go:wasmexport callout_caps
func exportCaps() int64 { return int64(capabilities(registered)) }

//go:wasmexport callout_init
func exportInit(n int32) int32 { return configure(registered, block, uint32(n)) }

//go:wasmexport callout_classify
func exportClassify() int64 { return int64(classify(registered, block)) }

//go:wasmexport callout_notify
func exportNotify(kind int32) int32 { return notify(registered, block, uint32(kind)) }

// Without this the garbage collector of a Go guest, which needs its own
// goroutines to run, can stay in one cycle for ever.
//
//go:wasmexport callout_idle
func exportIdle(int32) int32 {
	runtime.GC()
	runtime.Gosched()
	return 0
}
