package policyfile

import (
	"slices"
	"strings"
)

// prefixes are what the C names have and ours do not.
var prefixes = []string{"FWPM_LAYER_", "FWPM_CONDITION_", "FWP_CONDITION_FLAG_", "FWP_CONDITION_", "FWP_MATCH_", "FWP_ACTION_", "FWPM_"}

// othersWords are what other firewalls call the actions.
var othersWords = map[string]string{"deny": "block", "drop": "block", "reject": "block", "allow": "permit", "accept": "permit", "pass": "permit",
	"redirect": "callout", "proxy": "callout"}

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
	if w := othersWords[strings.ToLower(s)]; slices.Contains(words, w) {
		return w
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
