package policytest

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two policies do the same with a connection if it ends the same and its proxy learns
// the same, whatever made it so and wherever proxies listen.
func TestOutcomesAgreeInWhatIsNoticed(t *testing.T) {
	before, after := netip.MustParseAddrPort("127.0.0.1:61001"), netip.MustParseAddrPort("127.0.0.1:61002")
	c := Comparison{before: World{Proxies: map[string]netip.AddrPort{"a": before}}, after: World{Proxies: map[string]netip.AddrPort{"a": after}}}
	was := Outcome{Action: Redirect, Destination: before, Context: []byte("context"), Record: []byte("record")}
	for name, change := range map[string]func(is *Outcome){
		"action":      func(is *Outcome) { is.Action = Permit },
		"destination": func(is *Outcome) { is.Destination = before },
		"context":     func(is *Outcome) { is.Context = nil },
		"record":      func(is *Outcome) { is.Record = []byte("another") },
	} {
		is := was
		is.Destination, is.Reasons = after, []Reason{{Name: "another filter"}}
		require.True(t, c.agree(&was, &is))
		change(&is)
		require.False(t, c.agree(&was, &is), name)
	}
}
