package policyfile

import (
	"slices"
	"strings"
	"sync"

	"github.com/calloutd/calloutd/host/fwpm"
)

// prefixes are what the C names have and ours do not.
var prefixes = []string{"FWPM_LAYER_", "FWPS_LAYER_", "FWPM_CONDITION_", "FWPM_SUBLAYER_", "FWP_CONDITION_FLAG_", "FWP_CONDITION_", "FWP_MATCH_", "FWP_ACTION_", "FWPM_", "IPPROTO_"}

// othersWords are what other firewalls call the actions, and what the members of
// FWPM_FILTER0 and FWPM_FILTER_CONDITION0 are here.
var othersWords = map[string]string{"deny": "block", "drop": "block", "reject": "block", "allow": "permit", "accept": "permit", "pass": "permit",
	"redirect": "callout", "proxy": "callout", "callout_unknown": "callout",
	"displaydata": "name", "filterid": "id", "layerkey": "layer", "providerkey": "provider", "providercontextkey": "provider_context",
	"sublayerkey": "sublayer", "calloutkey": "callout", "filtercondition": "conditions", "effectiveweight": "weight",
	"fieldkey": "field", "matchtype": "match", "conditionvalue": "value", "clear_action_right": "hard", "uint64": "exact"}

// othersFlags are what the flags of the objects are here, by the key that somebody may write.
var othersFlags = map[string]string{
	"persistent": "what a file has is there at each start, since it is read then",
	"boottime":   "what a file has is there at each start, since it is read then",
	"flags":      "of a filter, CLEAR_ACTION_RIGHT is hard: true and PERMIT_IF_CALLOUT_UNREGISTERED is permit_if_callout_unregistered: true; a file is read at each start, so nothing is PERSISTENT or BOOTTIME",
}

// keys are the names of what fwpmu.h has a GUID for.
var keys = sync.OnceValue(func() map[string]string {
	names := map[string]string{sublayerUniversal: string(fwpm.SublayerUniversal), sublayerInspection: string(fwpm.SublayerInspection)}
	for _, l := range fwpm.Layers() {
		names[l.GUID()] = l.String()
	}
	for c := fwpm.ConditionID(1); c < fwpm.NumConditions; c++ {
		names[c.GUID()] = c.String()
	}
	return names
})

// The keys of the built-in sublayers (BFE-SUB-03).
const (
	sublayerUniversal  = "eebecc03-ced4-4380-819a-2734397b2b74"
	sublayerInspection = "877519e1-e6a9-41a5-81b4-8c4f118e4a60"
)

// nearest is the known word most like s, empty if none is.
func nearest(s string, words []string) string {
	const most = 100 // Nobody mistypes a name of that length, and distance is quadratic.
	if len(s) > most {
		return ""
	}
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(strings.ToUpper(s), p); ok {
			s = rest
			break
		}
	}
	for _, w := range []string{othersWords[strings.ToLower(s)], keys()[strings.ToLower(strings.Trim(s, "{}"))]} {
		if slices.Contains(words, w) {
			return w
		}
	}
	best, at := "", min(len(s), max(2, len(s)/3)+1) // Not a word with nothing in common.
	for _, w := range words {
		if d := distance(fold(s), fold(w)); d < at {
			best, at = w, d
		}
	}
	return best
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance counts the letters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost = 1 + min(prev, row[j], row[j-1])
			}
			prev, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
