// Package host is the engine: how policies and callouts go live.
//
// The picture of the whole; a package imports only what is below it:
//
//	L7  cmd/calloutd   host/policyrun              (a policy file with all that it names)
//	L6  wsk/wsknet     wsk/localproxy
//	L5  wsk            host/enforce/*
//	L4  host           host/ale                    (neither imports the other)
//	L3  host/arbitrate host/guest   host/redirect/memstore
//	L2  host/fwps
//	L1  host/fwpm      sdk/go/callout ◄─ plugins/*
//	L0  host/fwp       host/redirect   sdk/abi   wsk/ntstatus
//
// arbitrate decides one layer, a function from values to a value. ale takes a
// socket operation through the layers and is the only package that both decides
// and acts. A wasm module is just a fwps.Callout, so the engine knows no wasm;
// wsk takes an ale.Enforcer, so it knows no engine.
package host
