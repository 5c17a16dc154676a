package policyfile

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKEYSIsWhatTheTablesSay(t *testing.T) {
	src, err := os.ReadFile("KEYS.md")
	require.NoError(t, err)
	got := between(t, string(src), "keys", keyTables())
	got = between(t, got, "layers", layerTable())
	if *update {
		require.NoError(t, os.WriteFile("KEYS.md", []byte(got), 0o644))
		return
	}
	require.Equal(t, string(src), got, "run go generate")
}

func between(t *testing.T, s, name, text string) string {
	t.Helper()
	r := regexp.MustCompile(`(?s)(<!-- ` + name + `:[^\n]*-->\n).*?(<!-- end -->)`)
	require.Regexp(t, r, s)
	return r.ReplaceAllStringFunc(s, func(old string) string {
		m := r.FindStringSubmatch(old)
		return m[1] + text + m[2]
	})
}

func keyTables() string {
	var b strings.Builder
	for _, o := range []struct {
		title string
		of    *mapping
	}{
		{"The file", &fileKeys}, {"providers", &providerKeys}, {"provider_contexts", &contextKeys}, {"sublayers", &sublayerKeys},
		{"callouts", &calloutKeys}, {"limits of callouts", &limitKeys}, {"sets", &setKeys}, {"tables", &tableKeys}, {"rows of tables", &rowKeys},
		{"proxies", &proxyKeys}, {"credentials of proxies", &credentialKeys}, {"filters", &filterKeys}, {"conditions of filters", &conditionKeys},
	} {
		fmt.Fprintf(&b, "**%s.** %s\n\n| key | required | what |\n|---|---|---|\n", o.title, o.of.doc)
		for _, k := range o.of.keys {
			required := ""
			if k.required {
				required = "yes"
			}
			doc := k.doc
			form, lead := k.form, " One of `"
			if s, ok := form.(several); ok {
				form, lead = s.of, " Some of `"
			}
			if c, ok := form.(choice); ok && len(c.words()) < 20 && !strings.HasSuffix(k.name, "layer") {
				doc += lead + strings.Join(c.words(), "`, `") + "`."
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.name, required, doc)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func layerTable() string {
	var b strings.Builder
	b.WriteString("| layer | fields |\n|---|---|\n")
	for _, l := range layerNames() {
		if ls := parseLayer(l); len(ls) == 2 {
			fmt.Fprintf(&b, "| %s | %s |\n", l, strings.Join(fieldsOf(ls[0]), ", "))
		}
	}
	return b.String()
}
