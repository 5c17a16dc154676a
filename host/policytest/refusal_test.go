package policytest_test

import (
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
