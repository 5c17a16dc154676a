package conformance

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A case that is misspelt does not pass: each mistake has its place.
func TestCaseMistakes(t *testing.T) {
	const header = "id: X-1\nrule: Y.\n"
	for _, c := range []struct{ text, want string }{
		{"", "c.txtar:1: a case begins with the keys id and rule"},
		{"id: X-1\nrule Y.\n", `c.txtar:2: expected a key and a value, got "rule Y."`},
		{header + "id: X-2\n", `c.txtar:3: key "id" is unknown or stands twice`},
		{header, "c.txtar: there is no script"},
		{header + "-- skript --\n", `c.txtar:3: section "skript" is unknown or stands twice`},
		{header + "-- script --\n-- script --\n", `c.txtar:4: section "script" is unknown or stands twice`},
		{header + "-- options --\nquite\n-- script --\n", `c.txtar:4: "quite" is unknown here`},
		{header + "-- policy --\nfilter 1 - AUTH_CONNECT_V4 permt\n-- script --\n", `c.txtar:4: action "permt" is unknown`},
		{header + "-- policy --\nfilter 1 - AUTH_CONECT_V4 permit\n-- script --\n", `c.txtar:4: layer "AUTH_CONECT_V4" is unknown`},
		{header + "-- policy --\nfilter 1 - AUTH_CONNECT_V4 permit\n  IP_REMOTE_PROT equal 1\n-- script --\n", `c.txtar:5: field "IP_REMOTE_PROT" is unknown`},
		{header + "-- policy --\n  IP_REMOTE_PORT equal 1\n-- script --\n", "c.txtar:4: a condition must follow its filter"},
		{header + "-- policy --\nfilter 1 - AUTH_CONNECT_V4 permit weight=x\n-- script --\n", `c.txtar:4: weight "x"`},
		{header + "-- callouts --\n: permit\n-- script --\n", "c.txtar:4: expected the name of a callout"},
		{header + "-- callouts --\na: permitt\n-- script --\n", `c.txtar:4: action "permitt" is unknown`},
		{header + "-- callouts --\na: redirect=nowhere\n-- script --\n", "c.txtar:4: action redirect: "},
		{header + "-- callouts --\na when sometimes: permit\n-- script --\n", `c.txtar:4: selector "sometimes" is unknown`},
		{header + "-- callouts --\na sometimes\n-- script --\n", `c.txtar:4: attribute "sometimes" is unknown`},
		{header + "-- script --\nconect a\n", `c.txtar:4: command "conect" is unknown`},
		{header + "-- script --\nlisten\n", `c.txtar:4: expected a socket at the end of "listen"`},
		{header + "-- script --\nsocket a tcp\nconnect a nowhere\n", `c.txtar:5: "nowhere" is no address with a port`},
		{header + "-- script --\nsocket a tcp verbose\n", `c.txtar:4: "verbose" is unknown here`},
		{header + "-- script --\nclassify AUTH_CONNECT_V4 10.0.0.5:0 color=red\n", `c.txtar:4: field "color" is unknown`},
	} {
		t.Run(c.want, func(t *testing.T) {
			parsed, err := Parse("c.txtar", []byte(c.text))
			if err == nil {
				_, err = parsed.Trace(nil)
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Whatever a case file says, reading it and making its world do not panic, and a
// trace that is written into it is read back.
func FuzzParse(f *testing.F) {
	cases, err := Cases()
	require.NoError(f, err)
	for _, c := range cases {
		data, err := os.ReadFile(c.File)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.txtar", data)
		if err != nil {
			return
		}
		_, _ = newWorld(c, nil, nil)
		again, err := Parse("fuzz.txtar", withWant(data, "= ok\n"))
		require.NoError(t, err)
		require.Equal(t, "= ok\n", again.Want)
		require.Equal(t, c.ID, again.ID)
	})
}
