//go:build ignore

// Command gen makes the constants of every language and ABI.md from abi.yaml.
// With -check it writes nothing and fails if a file is not what it would write.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v4"
)

type table struct {
	Minor                                 int
	Exports                               []export
	Imports                               []imported
	Sizes, Limits, Layers, Actions, Flags []row
	Pack, States, Events                  []row
	ConditionFlags                        []row `yaml:"condition_flags"`
	Errors                                []row
	Request, Response, Init               []field
	Present, Capabilities                 []string
}

type export struct {
	Name, ID, Type, Doc string
	Required            bool
}

type imported struct{ Name, Cap, Type, Doc string }

type row struct {
	Name  string
	Value int64
	Doc   string
}

type field struct {
	Name, Type, Doc string
	Offset          int64
}

func (r *row) UnmarshalYAML(n *yaml.Node) error { return tuple(n, &r.Name, &r.Value, &r.Doc) }

func (f *field) UnmarshalYAML(n *yaml.Node) error {
	return tuple(n, &f.Name, &f.Offset, &f.Type, &f.Doc)
}

// tuple reads a sequence of as many values as there are places for.
func tuple(n *yaml.Node, to ...any) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) != len(to) {
		return fmt.Errorf("line %d: want %d values", n.Line, len(to))
	}
	for i, v := range n.Content {
		if err := v.Decode(to[i]); err != nil {
			return err
		}
	}
	return nil
}

// An output is a file made whole, or the part of one between two marks.
type output struct {
	path, template string
	begin, end     string
}

var outputs = []output{
	{path: "zabi.go", template: "go.tmpl"},
	{path: "ABI.md", template: "md.tmpl"},
	{path: "../c/callout.h", template: "c.tmpl", begin: "/* begin of what sdk/abi/gen.go makes */\n", end: "/* end of what sdk/abi/gen.go makes */"},
	{path: "../rust/src/abi.rs", template: "rust.tmpl"},
	{path: "../assemblyscript/assembly/abi.ts", template: "ts.tmpl"},
	{path: "../zig/abi.zig", template: "zig.tmpl"},
}

func main() {
	log.SetFlags(0)
	check := flag.Bool("check", false, "fail if a file would change")
	flag.Parse()
	src, err := os.ReadFile("abi.yaml")
	if err != nil {
		log.Fatal(err)
	}
	var t table
	if err := yaml.Load(src, &t, yaml.WithKnownFields()); err != nil {
		log.Fatalf("abi.yaml: %v", err)
	}
	for _, o := range outputs {
		if err := o.write(&t, *check); err != nil {
			log.Fatalf("%s: %v", o.path, err)
		}
	}
}

func (o output) write(t *table, check bool) error {
	var b bytes.Buffer
	form, err := template.New(o.template).Funcs(funcs).ParseFiles(filepath.Join("templates", o.template))
	if err != nil {
		return err
	}
	if err := form.Execute(&b, t); err != nil {
		return err
	}
	now, err := os.ReadFile(o.path)
	if err != nil && (check || o.begin != "") {
		return err
	}
	want := b.Bytes()
	if strings.HasSuffix(o.path, ".go") {
		if want, err = format.Source(want); err != nil {
			return err
		}
	}
	if o.begin != "" {
		before, rest, ok := bytes.Cut(now, []byte(o.begin))
		_, after, ok2 := bytes.Cut(rest, []byte(o.end))
		if !ok || !ok2 {
			return fmt.Errorf("no part between %q and %q", o.begin, o.end)
		}
		want = bytes.Join([][]byte{before, []byte(o.begin), want, []byte(o.end), after}, nil)
	}
	switch {
	case bytes.Equal(now, want):
		return nil
	case check:
		return fmt.Errorf("is not what abi.yaml makes: run go generate")
	}
	return os.WriteFile(o.path, want, 0o644)
}

var funcs = template.FuncMap{
	"upper":  upper,
	"bit":    func(i int) int { return 1 << i },
	"hexbit": func(i int) string { return fmt.Sprintf("0x%x", 1<<i) },
	"hex":    func(n int64) string { return fmt.Sprintf("0x%x", n) },
	"lower":  strings.ToLower,
	"next":   func(i int) int { return i + 1 },
	"family": func(s string) string { return strings.TrimSuffix(upper(s), "_V4") },
	"and": func(s string) string {
		if s != "" {
			s = ": " + s
		}
		return s
	},
}

// upper turns RedirectState into REDIRECT_STATE.
func upper(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && r >= 'A' && r <= 'Z' && (s[i-1] >= 'a' && s[i-1] <= 'z' || i+1 < len(s) && s[i+1] >= 'a' && s[i+1] <= 'z') {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}
