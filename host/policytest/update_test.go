package policytest_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policytest"
)

// Whatever a filter is called and a callout says, an updated file has it, wherever it stands.
func TestUpdateWritesAnyText(t *testing.T) {
	for _, text := range []string{"a", "two words", "a: b", "a:b", "a:", ":", "x #y", "x#y", "#", "- z", "-", "-1", "0x1f", "1.5", "true", "~", "null", "it's", " first", "last ",
		"[a]", "a, b", `"q"`, `\`, "{", "}", "*a", "&a", "!t", "%d", "@", "`", "|", ">", "?", "? x", "=", "<<", "---", "...", "é", "日本",
		"a\tb", "a\nb", "a\n\nb: c", "a\r\nb", "\n", "\u2028", "\u0085", "\u00a0", "\ufeff", "\x7f", "\x01", "\U0001f600"} {
		t.Run(strconv.Quote(text), func(t *testing.T) {
			for _, form := range []string{"cases:\n- {name: c, to: '[2001:db8::1]:80', expect: {action: permit, filter: web to the proxy, reason: %s}}\n",
				"cases:\n- name: c\n  to: '[2001:db8::1]:80'\n  expect:\n    reason: %s # a word\n    action: permit\n    filter: web to the proxy\n",
				"tables:\n- {name: t, columns: [to, action, filter, reason], rows: [['[2001:db8::1]:80', permit, web to the proxy, %s]]}\n"} {
				w := worldOf(t, sends{why: text})
				result := func(src string) (*policytest.Suite, []policytest.Result) {
					s, err := policytest.Parse("f", []byte(src))
					require.NoError(t, err)
					require.NoError(t, s.Bind(w.Policy, w.Proxies))
					return s, policytest.Run(t.Context(), w, s, []*policytest.Case{&s.Cases[0]}, 1, policytest.NewCoverage(w.Policy))
				}
				b, err := policytest.Update(result(fmt.Sprintf("version: 1\n"+form, "not this")))
				require.NoError(t, err)
				s, rs := result(string(b))
				require.True(t, rs[0].Passed(), "%s%s", b, rs[0].Explain())
				wants := s.Cases[0].Steps[0].Want
				reason := slices.IndexFunc(wants, func(w policytest.Want) bool { return w.Key == "reason" })
				require.Equal(t, text, wants[reason].Text)
			}
		})
	}
}

// What none is written of, nothing is: a filter that decided elsewhere is told before what no
// filter decided, and what another filter says does not count where one is meant.
func TestUpdateWritesWhatPasses(t *testing.T) {
	for _, expect := range []string{"reason: not this", "filter: no mail", "filter: no mail, reason: not this", "rule: ARB-09, reason: not this", "callout: none, reason: not this",
		"layer: ALE_AUTH_CONNECT, reason: not this", "layer: ALE_CONNECT_REDIRECT, reason: not this", "redirect_state: none, reason: none", "filter: none", "provider: none, filter: none"} {
		t.Run(expect, func(t *testing.T) {
			s, rs, _ := runIn(t, worldOf(t, sends{why: "it is IPv6"}), "version: 1\ncases:\n- {name: c, to: '[2001:db8::1]:80', expect: {action: permit, "+expect+"}}\n")
			b, err := policytest.Update(s, rs)
			require.NoError(t, err)
			_, rs, _ = runIn(t, worldOf(t, sends{why: "it is IPv6"}), string(b))
			require.True(t, rs[0].Passed(), "%s%s", b, rs[0].Explain())
		})
	}
}
