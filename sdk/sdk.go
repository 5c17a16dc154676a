// Package sdk holds the sources of the SDKs, so that a program can give them to
// a new policy without a network.
package sdk

import "embed"

// Files are the sources, by their path in this folder.
//
//go:embed abi/ABI.md abi/abi.go abi/zabi.go go/callout/*.go
//go:embed c/callout.h c/callout_json.h rust/Cargo.toml rust/src rust/examples/split.rs zig/*.zig
//go:embed assemblyscript/assembly/*.ts assemblyscript/test/harness.mjs
//go:embed js/engine.wasm js/callout.d.ts js/prelude.cc js/test/harness.mjs
var Files embed.FS
