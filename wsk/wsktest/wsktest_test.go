package wsktest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/calloutd/calloutd/host/conformance"
	"github.com/calloutd/calloutd/wsk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { Run(t, wsk.Debug{}) }

// The same with a provider that keeps clients from relying on luck (AMB-04).
func TestConformanceAlwaysPend(t *testing.T)  { Run(t, wsk.Debug{AlwaysPend: true}) }
func TestConformanceRandomOrder(t *testing.T) { Run(t, wsk.Debug{RandomOrder: true}) }

// Every rule that the list gives to this suite has a case, and no case is of a
// rule that there is not.
func TestEveryRuleHasACase(t *testing.T) {
	rules, err := conformance.Rules()
	require.NoError(t, err)
	cases, err := Cases()
	require.NoError(t, err)
	shown := map[string]bool{}
	for _, c := range cases {
		for _, id := range c.Rules {
			known := slices.ContainsFunc(rules, func(r conformance.Rule) bool { return r.ID == id && r.Status != conformance.NotApplicable })
			require.True(t, known, "%s: case %q shows %s, which is no rule that applies", c.file, c.Name, id)
			shown[id] = true
		}
	}
	for _, r := range rules {
		if r.Shown == "wsk/wsktest" {
			require.True(t, shown[r.ID], "%s has no case: %s", r.ID, r.Says)
		}
	}
}
