package policytest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/policytest"
)

// The first rows are from RFC 7396, appendix A.
func TestARefusalsConfiguration(t *testing.T) {
	for _, c := range []struct{ want, own, change string }{
		{`{"a":"c"}`, `{"a":"b"}`, `{"a":"c"}`},
		{`{"a":"b","b":"c"}`, `{"a":"b"}`, `{"b":"c"}`},
		{`{}`, `{"a":"b"}`, `{"a":null}`},
		{`{"b":"c"}`, `{"a":"b","b":"c"}`, `{"a":null}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":["b"]}`},
		{`{"a":{"b":"d"}}`, `{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`},
		{`{"a":[1]}`, `{"a":[{"b":"c"}]}`, `{"a":[1]}`},
		{`["c","d"]`, `["a","b"]`, `["c","d"]`},
		{`["c"]`, `{"a":"b"}`, `["c"]`},
		{`null`, `{"a":"foo"}`, `null`},
		{`{"a":1,"e":null}`, `{"e":null}`, `{"a":1}`},
		{`{"a":"b"}`, `[1,2]`, `{"a":"b","c":null}`},
		{`{"a":{"bb":{}}}`, `{}`, `{"a":{"bb":{"ccc":null}}}`},
		{`{"a":18446744073709551615,"b":1}`, `{"a":18446744073709551615}`, `{"b":1}`},
		{`{"b":1}`, ``, `{"b":1}`},
	} {
		got, err := (&policytest.Refusal{Change: []byte(c.change)}).Of([]byte(c.own))
		require.NoError(t, err)
		require.Equal(t, c.want, string(got), "%s with %s", c.own, c.change)
	}
	whole, err := (&policytest.Refusal{Config: []byte("{}")}).Of([]byte(`{"a":1}`))
	require.NoError(t, err)
	require.Equal(t, "{}", string(whole))
	_, err = (&policytest.Refusal{Change: []byte("{}")}).Of([]byte("key=value"))
	require.Error(t, err)
}

// A refusal is what the callout says itself. One that fails has not refused, whatever the
// error says.
func TestARefusalIsTheCalloutsOwn(t *testing.T) {
	s, err := policytest.Parse("p_test.yaml", []byte(`version: 1
refusals:
- {name: a part of why, callout: sends, config: {}, reason: required}
- {name: not why, callout: sends, config: {}, reason: refused}
`))
	require.NoError(t, err)
	w := world(t)
	refuse := func(why string, err error) []policytest.Result {
		w.Configure = func(context.Context, *policytest.Refusal) (string, error) { return why, err }
		return policytest.Run(t.Context(), w, s, []*policytest.Case{&s.Cases[0], &s.Cases[1]}, 1, policytest.NewCoverage(w.Policy))
	}
	rs := refuse("port: required", nil)
	require.True(t, rs[0].Passed(), rs[0].Explain())
	require.Equal(t, []string{"reason"}, wrong(&rs[1]))
	rs = refuse("", errors.New("refused: the budget is spent, which is required"))
	require.False(t, rs[0].Passed() || rs[1].Passed())
	rs = refuse("", nil)
	require.Equal(t, []string{"reason"}, wrong(&rs[0]))
}
