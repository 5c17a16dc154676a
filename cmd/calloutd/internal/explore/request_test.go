package explore_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/cmd/calloutd/internal/explore"
)

func TestARequestThatIsNone(t *testing.T) {
	for body, says := range map[string]string{
		``:                                   "byte 0: EOF",
		`{"connection":7}`:                   "byte 15: ",
		`{"connection":{"too":"1"}}`:         `unknown field "too"`,
		`{"connection":{"to":7}}`:            "byte 21: ",
		`{"connection":{}} {}`:               "byte 19: something follows the request",
		`{"connection":{"inbound":"maybe"}}`: "byte 32: ",
		`{"connection`:                       "unexpected EOF",
	} {
		_, _, err := explore.Parse([]byte(body), []string{"policy.yaml"})
		require.ErrorContains(t, err, says, body)
	}
}

func TestTheFirstPolicyIsMeantUnlessOneIsNamed(t *testing.T) {
	ask := func(policy string) (explore.Question, []explore.Mistake) {
		q, mistakes, err := explore.Parse([]byte(`{"policy":"`+policy+`","connection":{"to":"192.0.2.1:1","protocol":"tcp","host_name":"a.example","peer_name":"b.example"}}`), []string{"one.yaml", "two.yaml"})
		require.NoError(t, err)
		return q, mistakes
	}
	q, mistakes := ask("")
	require.Empty(t, mistakes)
	require.Equal(t, "one.yaml", q.Policy)
	require.Equal(t, "a.example", q.HostName)
	require.Equal(t, "b.example", q.PeerName)
	q, mistakes = ask("two.yaml")
	require.Empty(t, mistakes)
	require.Equal(t, "two.yaml", q.Policy)
	_, mistakes = ask("../../etc/passwd")
	require.Equal(t, []explore.Mistake{{Field: "policy", Length: 16, Message: "this is no policy that is explored here"}}, mistakes)
}

// Whatever comes is a question, a mistake that lies within its field, or an error; and
// a question has what the layers need.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"policy":"p","connection":{"to":"198.51.100.7:80","protocol":"tcp","user":"7","groups":"1, 2","pid":"3"}}`,
		`{"connection":{"to":"[2001:db8::7%1]:80","from":"10.0.0.1","protocol":"ü","inbound":true}}`,
		`{"connection":{"to":"1.2.3.:99999","from":" ::1 ","groups":",x,\u0000","host_name":"a b"}}`,
		`{"connection":`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, mistakes, err := explore.Parse(body, []string{"p"})
		if err != nil {
			require.Contains(t, err.Error(), "byte ")
			return
		}
		for _, m := range mistakes {
			require.NotEmpty(t, m.Message)
			require.GreaterOrEqual(t, m.At, 0)
			require.GreaterOrEqual(t, m.Length, 0)
		}
		if len(mistakes) > 0 {
			return
		}
		require.Equal(t, "p", q.Policy)
		require.True(t, q.In.Remote.IsValid())
		require.True(t, !q.In.Inbound || q.In.Local.IsValid())
		require.True(t, !q.In.Local.IsValid() || q.In.Local.Addr().Is4() == q.In.Remote.Addr().Is4())
		require.True(t, utf8.ValidString(q.In.AppID))
	})
}

// The place of a mistake lies within the field.
func FuzzConnection(f *testing.F) {
	f.Add("198.51.100.700:80", "::1", "x, 7")
	f.Add("äö.ü:1", " [::]:1", "7 7 7x")
	f.Add("1:1", strings.Repeat("ü", 200), "")
	f.Fuzz(func(t *testing.T, to, from, groups string) {
		c := explore.Connection{To: to, From: from, Groups: groups, Protocol: to, HostName: from, PeerName: groups, PID: groups, User: "7"}
		_, mistakes := c.Incoming()
		for _, m := range mistakes {
			require.LessOrEqual(t, m.At+m.Length, utf8.RuneCountInString(c.Field(m.Field)), "%+v", m)
		}
	})
}
