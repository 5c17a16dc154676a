package main

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/abi"
)

func TestWhatThePolicySaysIsWhatTheGuestGets(t *testing.T) {
	file, err := policyfile.Parse("policy.yaml", []byte(`version: 1
sets: [{id: s, prefixes: [192.0.2.0/24]}]
tables: [{id: t, rows: [{prefix: 10.0.0.0/8, value: 7}]}]
callouts:
  - {id: plain, wasm: x}
  - id: all
    wasm: x
    sets: [s]
    tables: [t]
    capabilities: [kv]
    limits: {fuel_slices: 2, start_fuel_slices: 3, slots: 4, spares: 5}
    on_failure: continue
    max_failures: 0
`))
	require.NoError(t, err)
	l := loader{world: new(world), t: new(tracer)}
	options := func(i int) guest.ModuleOptions {
		o := l.options(file.Callouts[i], nil)
		require.NotNil(t, o.Logf)
		require.NotNil(t, o.OnEvent)
		o.Logf, o.OnEvent = nil, nil // Functions cannot be compared.
		return o
	}
	require.Equal(t, guest.ModuleOptions{Withhold: ^uint32(abi.CapLog | abi.CapRandom | abi.CapWall | abi.CapKV | abi.CapMetric)}, options(0))
	prefix := netip.MustParsePrefix
	require.Equal(t, guest.ModuleOptions{
		Withhold: ^uint32(abi.CapKV | abi.CapSets | abi.CapTables), Sets: [][]netip.Prefix{{prefix("192.0.2.0/24")}},
		Tables:     [][]guest.Row{{{Prefix: prefix("10.0.0.0/8"), Value: 7}}},
		FuelSlices: 2, InitFuelSlices: 3, Slots: 4, Spares: 5, OnFailure: guest.FailContinue, MaxFailures: -1,
	}, options(1))
}
