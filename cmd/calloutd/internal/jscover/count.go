package jscover

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/parser"
)

// parse reads a script. The source map that it may name is nobody's here.
func parse(src string) (*ast.Program, error) {
	return parser.ParseFile(nil, "", src, parser.IgnoreRegExpErrors, parser.WithDisableSourceMaps)
}

// A counter goes over a script and notes what is to be inserted.
type counter struct {
	src        string
	counters   string // what the array is called
	insertions []insertion
	statements []Statement
	seen       map[uintptr]bool // the tree names declarations twice
	err        error
}

var (
	statementType  = reflect.TypeFor[ast.Statement]()
	statementsType = reflect.TypeFor[[]ast.Statement]()
	identifierType = reflect.TypeFor[ast.Identifier]()
	placeType      = reflect.TypeFor[file.Idx]()
)

// program begins with the array, behind directives: these must be first.
func (c *counter) program(p *ast.Program) {
	at := 0
	for _, s := range p.Body[:directives(p.Body)] {
		at = offset(s.Idx1())
	}
	c.insert(at, map[bool]string{true: "", false: ";"}[at == 0]+"const "+c.counters+"=new Uint32Array(host.counters());")
	c.list(p.Body)
}

// directives is how many statements are such as "use strict".
func directives(list []ast.Statement) (n int) {
	for ; n < len(list); n++ {
		s, ok := list[n].(*ast.ExpressionStatement)
		if !ok {
			break
		}
		if _, ok := s.Expression.(*ast.StringLiteral); !ok {
			break
		}
	}
	return n
}

func (c *counter) list(list []ast.Statement) {
	for _, s := range list[directives(list):] {
		c.statement(s)
	}
}

// statement counts one and goes into it. Declarations of functions, blocks and empty
// statements do nothing themselves.
func (c *counter) statement(s ast.Statement) {
	v := reflect.ValueOf(s)
	switch s.(type) {
	case *ast.FunctionDeclaration, *ast.BlockStatement, *ast.EmptyStatement:
		c.walk(v)
		return
	}
	at := c.start(v)
	n := c.count(at, offset(s.Idx1()), "%s[%d]=1;")
	c.walk(v)
	c.outside(n)
}

// count gives a piece of code a counter.
func (c *counter) count(at, end int, form string) (n int) {
	n = len(c.statements)
	c.insert(at, fmt.Sprintf(form, c.counters, n))
	c.statements = append(c.statements, Statement{c.line(at), c.line(min(end, len(c.src)))})
	return n
}

// outside leaves the lines to the statements in the n-th that are theirs.
func (c *counter) outside(n int) {
	if s := &c.statements[n]; n+1 < len(c.statements) {
		s.End = min(s.End, max(s.Line, c.statements[n+1].Line-1))
	}
}

// body is a statement alone behind if, else or a loop: with a counter it is two.
func (c *counter) body(s ast.Statement) {
	switch s.(type) {
	case *ast.BlockStatement, *ast.EmptyStatement:
		c.walk(reflect.ValueOf(s))
		return
	}
	c.insert(c.start(reflect.ValueOf(s)), "{")
	c.statement(s)
	c.insert(c.end(offset(s.Idx1())), "}")
}

// arrow is a function that is an expression. What is before the last colon of a
// condition leaves room for any expression behind it.
func (c *counter) arrow(b *ast.ExpressionBody) {
	v := reflect.ValueOf(b.Expression)
	n := c.count(c.start(v), offset(b.Idx1()), "!(%s[%d]=1)?0:")
	c.walk(v)
	c.outside(n)
}

// walk looks for statements and arrow functions in any part of the tree.
func (c *counter) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface:
		c.walk(v.Elem())
	case reflect.Slice:
		if v.Type() == statementsType {
			c.list(v.Interface().([]ast.Statement))
			return
		}
		for i := range v.Len() {
			c.walk(v.Index(i))
		}
	case reflect.Pointer:
		if v.IsNil() || c.seen[v.Pointer()] {
			return
		}
		c.seen[v.Pointer()] = true
		switch n := v.Interface().(type) {
		case *ast.ExpressionBody:
			c.arrow(n)
		case *ast.LabelledStatement: // Between a label and its loop there is room for nothing.
			c.walk(reflect.ValueOf(n.Statement))
		default:
			c.walk(v.Elem())
		}
	case reflect.Struct:
		if v.Type() == identifierType && v.Interface().(ast.Identifier).Name.AsUtf16() != nil {
			c.err = errors.New("it has names outside of ASCII")
		}
		c.fields(v)
	}
}

func (c *counter) fields(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Type() != statementType:
			c.walk(f)
		case !f.IsNil():
			c.body(f.Interface().(ast.Statement))
		}
	}
}

func offset(i file.Idx) int { return int(i) - 1 }

// start is the first byte of a statement or an expression: the first that its tree
// names, and the parentheses before it, of which the tree knows nothing.
func (c *counter) start(v reflect.Value) int {
	at := offset(first(v, file.Idx(len(c.src)+1)))
	for {
		open := c.before(at, "(")
		if open < 0 {
			break
		}
		at = open
	}
	if _, ok := v.Interface().(*ast.IfStatement); ok { // The tree has no place of the word itself.
		if at = c.before(at, "if"); at < 0 {
			c.err = errors.New("there is a comment between an if and its condition")
			return 0
		}
	}
	return at
}

// before is where a word stands that only space and comments are behind, or -1.
func (c *counter) before(at int, word string) int {
	text := strings.TrimRight(c.src[:at], " \t\r\n")
	for strings.HasSuffix(text, "*/") {
		text = strings.TrimRight(text[:max(0, strings.LastIndex(text, "/*"))], " \t\r\n")
	}
	if !strings.HasSuffix(text, word) {
		return -1
	}
	return len(text) - len(word)
}

// first is the least place in a tree.
func first(v reflect.Value, least file.Idx) file.Idx {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if !v.IsNil() {
			return first(v.Elem(), least)
		}
	case reflect.Slice:
		for i := range v.Len() {
			least = first(v.Index(i), least)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			least = first(v.Field(i), least)
		}
	case reflect.Int:
		if v.Type() == placeType && v.Int() > 0 {
			least = min(least, file.Idx(v.Int()))
		}
	}
	return least
}

// end is behind the parentheses and the semicolon that close a statement.
func (c *counter) end(at int) int {
	for at = min(at, len(c.src)); ; {
		rest := strings.TrimLeft(c.src[at:], " \t\r\n")
		if rest == "" || rest[0] != ')' && rest[0] != ';' {
			return at
		}
		at = len(c.src) - len(rest) + 1
		if rest[0] == ';' {
			return at
		}
	}
}
