package meter_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// A module that would never return is stopped when its fuel is spent.
func ExampleRewrite() {
	ctx := context.Background()
	wasm, err := os.ReadFile("testdata/endless.wasm")
	if err != nil {
		log.Fatal(err)
	}
	metered, err := meter.Rewrite(wasm)
	if err != nil {
		log.Fatal(err)
	}
	runtime := wazero.NewRuntime(ctx)
	defer runtime.Close(ctx)
	guest, err := runtime.Instantiate(ctx, metered)
	if err != nil {
		log.Fatal(err)
	}
	budget := guest.ExportedGlobal(meter.BudgetGlobal).(api.MutableGlobal)
	budget.Set(256) // slices of meter.SliceFuel units
	_, err = guest.ExportedFunction("loop").Call(ctx)
	fmt.Println("it ended:", err != nil)
	fmt.Println("its fuel is spent:", int32(budget.Get()) < 0)
	// Output:
	// it ended: true
	// its fuel is spent: true
}

// What a module is made of is known without running it.
func ExampleInspect() {
	wasm, err := os.ReadFile("testdata/endless.wasm")
	if err != nil {
		log.Fatal(err)
	}
	s, err := meter.Inspect(wasm)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(s.Imports), "imports,", len(s.Memories), "memory")
	fmt.Println("it is made to pay in loops:", s.Inserted.Loops > 0)
	// Output:
	// 0 imports, 1 memory
	// it is made to pay in loops: true
}
