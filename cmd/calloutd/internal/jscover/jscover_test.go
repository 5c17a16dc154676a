package jscover

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dop251/goja"
	"github.com/stretchr/testify/require"
)

// run runs a script and returns its value, or what it throws, and its counters.
func run(t *testing.T, script string) (string, []uint32) {
	vm := goja.New()
	memory := make([]byte, 4*Max)
	require.NoError(t, vm.Set("host", map[string]any{"counters": func() any { return vm.NewArrayBuffer(memory) }}))
	v, err := vm.RunString(script)
	var ran []uint32
	for i := range Max {
		ran = append(ran, uint32(memory[4*i]))
	}
	if err != nil {
		said, _, _ := strings.Cut(err.Error(), " at ") // Columns are others.
		return said, ran
	}
	return v.String(), ran
}

// programs are expressions of everything that a statement can begin or end with. What
// is marked never runs.
var programs = []string{
	"let a = 1; a + 1",
	"'use strict'; let f = function() { return this }; String(f())",
	"\"use strict\"\nString((function() { return this })())",
	"function f() { return 2 } f()",
	"function f(x) {\n if (x)\n  return 1;\n else\n  return 2; // never\n}\nf(true)",
	"function f(x) { if (x) return (1); return (2) }\nf(true) + f(false)",
	"let s = 0; for (const x of [1, 2, 3]) s += x\ns",
	"let s = 0; for (const x in {a: 1}) s += x; s",
	"let s = 0; for (let i = 0; i < 3; i++) s += i; s",
	"let s = 0; while (s < 3) s++\ns",
	"let s = 0; do s++; while (s < 3)\ns",
	"let s = 0; do (s++)\nwhile (s < 3)\ns",
	"let s = 0; outer: for (;;) { for (;;) { if (++s > 2) break outer; continue outer } } s",
	"let s = 0; a: b: for (; s < 2; s++) break a; s",
	"let s = ''; switch (2) { case 1: s += 'a' // never\n case 2: s += 'b'; case 3: { s += 'c'; break }\n default: s += 'd' // never\n} s",
	"let s = ''; try { throw 1 } catch (e) { s += e } finally { s += 'f' } s",
	"let s = ''; try { s = 'x' } catch {\n s = 'y' // never\n} s",
	"(() => 3)()",
	"((a, b) => (a, b))(1, 2)",
	"(x => ({x}))(4).x",
	"(x => y => x + y)(1)(2)",
	"let z; (x => z = x)(5); z",
	"((x) => x ?? 7)(null)",
	"((a, b = () => a) => b())(8)",
	"[1, 2].map(x => x ? x * 2 : 0).join()",
	"(a => { return a })(9)",
	"const f = async x => await x; typeof f(1).then",
	"const f = async (x) => { await x; return 1 }; typeof f(1).then",
	"async function f() { return 1 } typeof f().then",
	"(async function() { return 1 })(); 'done'",
	"function* g() { yield 1; yield* [2] } [...g()].join()",
	"class A { static s = 5; #p = 1; static { this.t = 6 } get p() { return this.#p } m() { return A.s } }\nnew A().p + new A().m() + A.t",
	"let {a, b: [c] = [2], ...r} = {a: 1, d: 3}; a + c + r.d",
	"let o = {get x() { return 1 }, y() { return 2 }, z: function() { return 3 }}; o.x + o.y() + o.z()",
	"let tag = s => s[0]; tag`x`; tag `y`",
	"`a${(() => { return 1 })()}b`",
	"let a = 1\n;[2].forEach(x => a += x)\n;(function() { a += 10 })()\na",
	"let a = 0; if (a) a = 1 // never\nelse a = 2\na",
	"let a = 0; if (a) a = 1; else if (!a) a = 3; else a = 4; a // never",
	"let a = 0; if (!a) { a = 1 } else a = 2; a // never",
	"if (1) ; else 2; 5 // never",
	"with ({a: 3}) a",
	"if (1) with ({a: 3}) a; else 4 // never",
	"if (0) do { 1 } while (0) // never\nelse 5",
	"for (let i = 0; i < 2; i++);\n6",
	"let a = 1, b = 2; (a) + (b)",
	"let a = {b: [() => 1]}; (a).b[0]()",
	"(function() { throw new Error('x') })()",
	"var é = 1; 'ü' + 1",
	"let s = 'ü€'; if (s) s += '😀'; s.length",
	"let a = /[)};]/.test(')'); a",
	"let $ran = 5; $ran",
	"let f = function*() {}; [...f()].length",
	"new (class { constructor() { this.x = 1 } })().x",
	"let a = 1; a++\na--\na",
	"typeof undefined_name",
	"let f = () => 7; (/* why */ f)()",
	"let a; if (/* why */ /* not */ !a) a = 8; a",
	"let a = 5; { let a = 6 } a",
	"1n + 2n",
	"let o; o?.x; o?.[0]; o ??= 3; o",
	"// a comment\n/* another */ let a = 1 /* behind */; a // end",
	"",
}

// A script with counters does what it did without, and its statements run as they are
// marked.
func TestCountedScriptsDoTheSame(t *testing.T) {
	for _, src := range programs {
		t.Run(src, func(t *testing.T) {
			counted, statements, err := Count(src)
			if strings.Contains(src, "é") {
				require.EqualError(t, err, "it has names outside of ASCII")
				return
			}
			require.NoError(t, err)
			require.Equal(t, strings.Count(src, "\n"), strings.Count(counted, "\n"))
			want, _ := run(t, src)
			got, ran := run(t, counted)
			require.Equal(t, want, got, counted)
			lines := strings.Split(src, "\n")
			for i, s := range statements {
				if ran[i] == 0 {
					require.Contains(t, strings.Join(lines[s.Line-1:s.End], "\n"), "never", "statement %d of %s", i, counted)
				}
			}
		})
	}
}

func TestLinesOfStatements(t *testing.T) {
	_, got, err := Count("let a =\n 1\nfunction f(x) {\n  if (x &&\n      a) {\n    return a\n  }\n  return [1].map(y => {\n    return y\n  })\n}\nconst g = x =>\n  x\n")
	require.NoError(t, err)
	require.Equal(t, []Statement{{1, 2}, {4, 5}, {6, 6}, {8, 8}, {9, 9}, {12, 12}, {13, 13}}, got)
}

func TestWhatCannotBeMeasured(t *testing.T) {
	for src, want := range map[string]string{
		"function classify(":          "line 1: Unexpected end of input",
		"let a\nlet 1":                "line 2: Unexpected number",
		strings.Repeat("a();", Max+1): fmt.Sprintf("it has %d statements, the limit is %d", Max+1, Max),
		"if ( // why\na) b":           "there is a comment between an if and its condition",
		"( // why\na)()":              "with counters it is no script: line 2: Unexpected token ;",
	} {
		_, _, err := Count(src)
		require.EqualError(t, err, want)
	}
}

func FuzzCount(f *testing.F) {
	for _, src := range programs {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		counted, statements, err := Count(src)
		if err != nil {
			return
		}
		require.Equal(t, strings.Count(src, "\n"), strings.Count(counted, "\n"))
		for _, s := range statements {
			require.LessOrEqual(t, 1, s.Line)
			require.LessOrEqual(t, s.Line, s.End)
		}
	})
}

func TestMistakeIsWhereATextStopsBeingAScript(t *testing.T) {
	for src, want := range map[string][2]int{
		"": {}, "f(1);\n": {}, "f(\n  );;\n  )": {3, 3}, "\tlet const = 3;": {1, 6}, "f();\n/* é */ g(;": {2, 12},
	} {
		line, column := Mistake(src)
		require.Equal(t, want, [2]int{line, column}, src)
	}
}
