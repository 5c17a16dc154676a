package policymodel

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/calloutd/calloutd/host/internal/oneline"
	"github.com/calloutd/calloutd/host/policyfile"
)

// A profile is the kind of network that a rule is for.
type profile string

var profiles = []profile{"Domain", "Private", "Public"}

// What the firewall does at both layers, the heaviest first. Its own sublayer is
// lighter than what products add; the weight of it is in no manual.
const firewallHead = `{version: 1, provider: {id: windows-firewall, name: Windows Firewall}, ` +
	`sublayers: [{id: mpssvc-wf, name: FWPM_SUBLAYER_MPSSVC_WF, weight: 0x0a}], filters: [`

// The filters that are always there: loopback is not filtered, and what no rule is
// about goes out and does not come in.
var firewallFilters = []string{
	`{name: "Loopback, out", layer: ALE_AUTH_CONNECT, sublayer: mpssvc-wf, weight: 15, action: permit, conditions: [{field: FLAGS, match: flags_all_set, value: IS_LOOPBACK}]}`,
	`{name: "Loopback, in", layer: ALE_AUTH_RECV_ACCEPT, sublayer: mpssvc-wf, weight: 15, action: permit, conditions: [{field: FLAGS, match: flags_all_set, value: IS_LOOPBACK}]}`,
	`{name: Default Outbound, layer: ALE_AUTH_CONNECT, sublayer: mpssvc-wf, weight: 0, action: permit}`,
	`{name: Default Inbound, layer: ALE_AUTH_RECV_ACCEPT, sublayer: mpssvc-wf, weight: 0, action: block}`,
}

// room is how much of a policy the rules can be: the rest is for what is always there.
const room = policyfile.MaxSize - 2048

// A firewall is made of rules.
type firewall struct {
	reader  netshReader // for mistakes
	profile profile
	left    map[string][]int // lines of rules that are left out, by why
	reasons []string         // in their order
	filters []placedFilter
	size    int // of their texts, with the ends of lines
}

type placedFilter struct {
	line int
	text string
}

// newFirewall reads rules, of which those of a profile count.
func newFirewall(file string, src []byte, p profile) (*firewall, error) {
	rules, err := readNetsh(file, src)
	if err != nil {
		return nil, err
	}
	f := &firewall{reader: netshReader{file: file}, profile: p, left: map[string][]int{}}
	for _, r := range rules {
		if f.rule(r); f.full(r) {
			f.reader.fail(r.line, 1, "", "the rules up to this one make a larger policy than there can be (%d bytes)", policyfile.MaxSize)
			break
		}
	}
	if len(f.reader.errs) > 0 {
		return nil, f.reader.errs
	}
	return f, nil
}

// policy is the firewall as a policy file. Where at is set each filter stands in the
// line of its rule.
func (f *firewall) policy(at bool) []byte {
	var b strings.Builder
	b.WriteString(firewallHead)
	line := 1
	for _, p := range f.filters {
		for ; at && line < p.line || !at && line > 0; line++ {
			b.WriteByte('\n')
			if !at {
				break
			}
		}
		b.WriteString(p.text + ",")
	}
	for _, text := range firewallFilters {
		if !at {
			b.WriteByte('\n')
		}
		b.WriteString(text + ",")
	}
	if !at {
		b.WriteByte('\n')
	}
	b.WriteString("]}\n")
	return []byte(b.String())
}

// notes say which rules are left out.
func (f *firewall) notes() (out []string) {
	for _, why := range f.reasons {
		lines := f.left[why]
		rules := fmt.Sprintf("%d rules are left out, the first in line %d", len(lines), lines[0])
		if len(lines) == 1 {
			rules = fmt.Sprintf("the rule in line %d is left out", lines[0])
		}
		out = append(out, fmt.Sprintf("%s: %s: %s", f.reader.file, rules, why))
	}
	return out
}

// leave leaves a rule out that cannot be said here.
func (f *firewall) leave(r *rule, why string) {
	if f.left[why] == nil {
		f.reasons = append(f.reasons, why)
	}
	f.left[why] = append(f.left[why], r.line)
}

func (f *firewall) rule(r *rule) {
	if r.values["Enabled"] == "No" || !f.counts(r) {
		return
	}
	var c conditions
	for _, part := range []func(*rule, *conditions) string{f.scope, f.program, f.protocol, f.addresses, f.ports} {
		if why := part(r, &c); why != "" {
			f.leave(r, why)
			return
		}
	}
	rows := r.icmp
	if len(rows) == 0 {
		rows = []icmpRow{{-1, -1}}
	}
	for _, row := range rows {
		if f.add(r, c.icmp(row), c.family); f.full(r) { // One rule can have many rows, and long lists.
			return
		}
	}
}

func (f *firewall) full(r *rule) bool { return f.size+r.line > room }

// Blocks go before permits, whatever they say.
var firewallActions = map[string]string{"Block": "weight: 12, action: block", "Allow": "weight: 8, action: permit"}

func (f *firewall) add(r *rule, conditions []string, family string) {
	layer := map[string]string{"In": "ALE_AUTH_RECV_ACCEPT", "Out": "ALE_AUTH_CONNECT"}[r.values["Direction"]]
	name, _ := json.Marshal(oneline.Clean(r.name)) // A name in a policy can be printed.
	text := fmt.Sprintf("{name: %s, layer: %s%s, sublayer: mpssvc-wf, %s, conditions: [%s]}",
		name, layer, family, firewallActions[r.values["Action"]], strings.Join(conditions, ", "))
	f.filters = append(f.filters, placedFilter{r.line, text})
	f.size += len(text) + len(",\n")
}
