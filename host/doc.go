// Package host is the engine: how policies and callouts go live.
//
// The picture of the whole; a package imports only what is below it:
//
//	L10 cmd/calloutd     sdk/go/callouttest
//	L9  host/policytrace                         (what was decided, in words)
//	L8  host/policyrun                           (a policy file with all that it names)
//	L7  wsk/localproxy   host/policyfuzz
//	L6  wsk/wsknet       wsk/winsock       wsk/remote
//	L5  wsk              host/enforce/*    host/policytest
//	L4  host             host/ale          host/policyfile
//	L3  host/arbitrate   host/guest        host/redirect/memstore
//	L2  host/fwps        host/flight
//	L1  host/fwpm        host/journal      sdk/go/callout ◄─ plugins/*
//	L0  host/fwp         host/redirect     sdk/abi           wsk/ntstatus
//
// arbitrate decides one layer, a function from values to a value. ale takes a
// socket operation through the layers and is the only package that both decides
// and acts. A wasm module is just a fwps.Callout, so the engine knows no wasm;
// wsk takes an ale.Enforcer, so it knows no engine.
package host
