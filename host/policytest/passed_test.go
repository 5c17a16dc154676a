package policytest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/fwpm"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policytest"
)

func TestFiltersThatWerePassedBy(t *testing.T) {
	w, _ := filters(t, `
  - {name: light, layer: ALE_AUTH_CONNECT_V4, weight: 1, action: permit}
  - {name: decides, layer: ALE_AUTH_CONNECT_V4, weight: 2, action: permit}
  - {name: other port, layer: ALE_AUTH_CONNECT_V4, weight: 3, action: block, conditions: [{field: IP_REMOTE_PORT, value: [25, 26]}, {field: IP_PROTOCOL, value: tcp}]}
  - {name: inspects, layer: ALE_AUTH_CONNECT_V4, sublayer: inspection, action: block, conditions: [{field: IP_REMOTE_PORT, value: 1}]}
  - {name: other layer, layer: ALE_AUTH_RECV_ACCEPT_V4, action: block}
`)
	r := w.Record()
	_, err := w.Decide(t.Context(), r, connection(t, "tcp 127.0.0.1:443"))
	require.NoError(t, err)
	var asked policytest.Classification
	for _, c := range r.Asked {
		if c.In.Layer == fwpm.LayerALEAuthConnectV4 {
			asked = c
		}
	}
	require.Len(t, asked.Steps, 1)
	got := func(most int) (lines []string, more int) {
		ps, more := policytest.PassedBy(w.Policy, &asked.In, asked.Steps, most)
		for _, p := range ps {
			lines = append(lines, fmt.Sprint(p.Filter.Name, ": ", strings.Join(p.Unmet, "; "), " by ", p.By))
		}
		return lines, more
	}
	lines, more := got(10)
	require.Zero(t, more)
	require.Equal(t, []string{
		"other port: IP_REMOTE_PORT is 25 or IP_REMOTE_PORT is 26 (it is 443) by 0",
		"light:  by 2",
		"inspects: IP_REMOTE_PORT is 1 (it is 443) by 0",
	}, lines)
	lines, more = got(1)
	require.Equal(t, 2, more)
	require.Len(t, lines, 1)
}

// A list can have a hundred thousand alternatives; nobody reads more than a few.
func TestWhatAFilterWantsIsReadable(t *testing.T) {
	ports := make([]string, 100)
	for i := range ports {
		ports[i] = fmt.Sprint(i + 1)
	}
	f, err := policyfile.Parse("policy.yaml", []byte("version: 1\nfilters:\n  - {name: many, layer: ALE_AUTH_CONNECT_V4, action: block, conditions: [{field: IP_REMOTE_PORT, value: ["+strings.Join(ports, ", ")+"]}]}\n"))
	require.NoError(t, err)
	ps, _ := policytest.PassedBy(f, &fwps.Incoming{Layer: fwpm.LayerALEAuthConnectV4}, nil, 1)
	require.Len(t, ps[0].Unmet, 1)
	require.Contains(t, ps[0].Unmet[0], "IP_REMOTE_PORT is 8 or 92 more (it is")
}
