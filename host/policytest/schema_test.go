package policytest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/calloutd/calloutd/host/policytest"
)

func casesSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(policytest.Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("cases.json", doc))
	s, err := c.Compile("cases.json")
	require.NoError(t, err)
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, src []byte) error {
	t.Helper()
	var v any
	require.NoError(t, yaml.Unmarshal(src, &v))
	return s.Validate(v)
}

func TestTheSchemaTakesEveryFileOfCasesThatThereIs(t *testing.T) {
	s := casesSchema(t)
	files := 0
	for _, pattern := range []string{"../../examples/*/*_test.yaml", "../../plugins/*/*_test.yaml"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, f := range found {
			files++
			src, err := os.ReadFile(f)
			require.NoError(t, err)
			require.NoError(t, validate(t, s, src), f)
		}
	}
	require.Greater(t, files, 5)
}

func TestTheSchemaRefusesWhatTheReaderDoes(t *testing.T) {
	s := casesSchema(t)
	for _, src := range []string{
		"version: 2\n",
		"version: 1\ncaess: []\n",
		"version: 1\ncases: [{name: a, to: '192.0.2.1:1'}]\n",
		"version: 1\ncases: [{name: a, to: '192.0.2.1:1', expect: {action: allow}}]\n",
		"version: 1\ncases: [{name: a, tu: '192.0.2.1:1', expect: {action: permit}}]\n",
		"version: 1\ncases: [{name: a, to: nowhere, expect: {action: permit}}]\n",
		"version: 1\ncases: [{name: a, to: '192.0.2.1:1', expect: {filter: a}}]\n",
		"version: 1\ncases: [{name: a, to: '192.0.2.1:1', expect: {sound: false}}]\n",
		"version: 1\ntables: [{name: a, columns: [too], rows: []}]\n",
		"version: 1\nrefusals: [{name: a, callout: c, config: {}}]\n",
		"version: 1\nrefusals: [{name: a, callout: c, reason: r}]\n",
		"version: 1\nrefusals: [{name: a, callout: c, config: {}, change: {}, reason: r}]\n",
	} {
		require.Error(t, validate(t, s, []byte(src)), src)
		_, err := policytest.Parse("c_test.yaml", []byte(src))
		require.Error(t, err, src)
	}
}
