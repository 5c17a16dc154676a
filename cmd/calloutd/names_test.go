package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// exported are the names that a folder's package exports: Func, Type, Type.Method
// and Type.Field.
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			declared(names, d)
		}
	}
	return names
}

func declared(names map[string]bool, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil {
			name = receiver(d.Recv.List[0].Type) + "." + name
		}
		names[name] = true
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					names[n.Name] = true
				}
			case *ast.TypeSpec:
				names[s.Name.Name] = true
				for _, f := range members(s.Type) {
					for _, n := range f.Names {
						names[s.Name.Name+"."+n.Name] = true
					}
				}
			}
		}
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func members(e ast.Expr) []*ast.Field {
	switch e := e.(type) {
	case *ast.StructType:
		return e.Fields.List
	case *ast.InterfaceType:
		return e.Methods.List
	}
	return nil
}

var goName = regexp.MustCompile("`([a-z][a-z0-9]*)\\.([A-Z][A-Za-z0-9]*(?:\\.[A-Z][A-Za-z0-9]*)?)`")

// What a document calls by a Go name is there: a port that follows the table of
// host/PORTING.md finds each function.
func TestGoNamesInDocumentsExist(t *testing.T) {
	dirs := map[string]string{}
	for pkg := range imports {
		if name := filepath.Base(pkg); !strings.HasPrefix(pkg, "examples/") && !strings.HasPrefix(pkg, "plugins/") {
			dirs[name] = filepath.Join("../..", pkg)
		}
	}
	seen := map[string]map[string]bool{}
	found := 0
	for file, text := range documents(t) {
		for _, m := range goName.FindAllStringSubmatch(text, -1) {
			dir, ours := dirs[m[1]]
			if !ours {
				continue
			}
			if seen[m[1]] == nil {
				seen[m[1]] = exported(t, dir)
			}
			if !seen[m[1]][m[2]] {
				t.Errorf("%s: %s.%s is not in %s", file, m[1], m[2], dir)
			}
			found++
		}
	}
	require.Greater(t, found, 50)
}
