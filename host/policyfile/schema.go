package policyfile

import _ "embed"

//go:generate go test -run IsWhatTheTablesSay -update .

//go:embed schema.json
var schema []byte

// Schema is the JSON Schema of a policy file, for editors. The caller must not
// modify it.
func Schema() []byte { return schema }
