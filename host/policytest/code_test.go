package policytest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/policytest"
)

func TestALineRanWhenAnyOfItsBlocksDid(t *testing.T) {
	at := func(file string, lines ...int) (out []meter.Line) {
		for _, n := range lines {
			out = append(out, meter.Line{File: file, Line: n})
		}
		return out
	}
	c := policytest.BlocksOf("m.wasm", []meter.Block{{Lines: at("a.c", 1, 2)}, {Lines: at("a.c", 2, 3, 4)}, {Lines: at("a.c", 9)}, {Lines: at("sdk/callout.h", 7)},
		{Lines: at("/x/lib/std/json.zig", 1)}, {}}, []bool{true, false, false, false, false, false, false, false, false, false})
	require.Equal(t, "lines", c.Unit)
	ran, all := c.Count()
	require.Equal(t, []int{2, 5}, []int{ran, all}, "what the SDK and libraries do is not the callout's")
	require.Equal(t, []policytest.CodeGap{{Place: "a.c:3-4", What: "never ran"}, {Place: "a.c:9", What: "never ran"}}, c.Gaps())
}

func TestWithoutLinesBlocksCount(t *testing.T) {
	blocks := []meter.Block{{Name: "decide"}, {Name: "decide"}, {Name: "decide", Traps: true}, {Name: "~lib/rt/alloc"}, {Name: "core::fmt::write"}, {Function: 7},
		{Name: "_ZN4core3fmt5write17h7d6e1ee86dc7a26cE"}, {Name: "_ZN41_$LT$char$u20$as$u20$core..fmt..Debug$GT$3fmt17h63243453bc5ca1beE"}, {Name: "memcmp"}, {Name: "__multi3"}}
	c := policytest.BlocksOf("m.wasm", blocks, []bool{true, false, false, false, false, false, false, false, false, false})
	require.Equal(t, "blocks", c.Unit)
	require.InDelta(t, 33.3, c.Percent(), 0.1)
	require.Equal(t, []policytest.CodeGap{{"decide", "1 of 2 blocks never ran"}, {"function 7", "never ran"}}, c.Gaps())

	goes := policytest.BlocksOf("m.wasm", []meter.Block{{Name: "main.main"}, {Name: "runtime.gcStart"}, {Name: "fmt.Sprint"}}, []bool{true, false, false})
	require.EqualValues(t, 100, goes.Percent(), "of a Go module the package main")
}

func TestAStrippedModuleIsNotKnown(t *testing.T) {
	many := make([]meter.Block, 300)
	c := policytest.BlocksOf("m.wasm", many, make([]bool, 300))
	require.Contains(t, c.Unknown(), "stripped")
	few := policytest.BlocksOf("m.wasm", many[:100], make([]bool, 100))
	require.Empty(t, few.Unknown(), "what is written by hand is all of its author's")
	var b bytes.Buffer
	c.WriteText(&b)
	require.Equal(t, "coverage of m.wasm: not known, the module is stripped: 0 of 300 blocks ran, libraries among them\n", b.String())
}

// Nothing that could not be counted is called covered.
func TestAnUncountedModuleIsNotKnown(t *testing.T) {
	c := policytest.Code{Module: "m.wasm", Unit: "statements", Uncounted: "no script"}
	require.Equal(t, "no script", c.Unknown())
	var text, object, page bytes.Buffer
	c.WriteText(&text)
	require.Equal(t, "coverage of m.wasm: not known: no script\n", text.String())
	require.NoError(t, c.WriteJSON(&object))
	require.Contains(t, object.String(), `"uncounted":"no script"`)
	require.NoError(t, policytest.WriteHTML(&page, nil, []policytest.Code{c}))
	require.Contains(t, page.String(), "m.wasm: not known</h2>\n<p>no script")
	require.NotContains(t, page.String(), "100.0")
}

// source has three statements of two lines each.
func source(t *testing.T) (string, policytest.Code) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte("a\nb\nc <&>\nd\n"), 0o600))
	return file, policytest.Code{Module: "m", Unit: "statements", Parts: []policytest.CodePart{
		{File: file, Line: 1, End: 2, Size: 2, Ran: true}, {File: file, Line: 3, End: 3, Size: 1}, {File: file, Line: 2, End: 3, Size: 1, Ran: true}}}
}

func TestTheSameModuleElsewhereCounts(t *testing.T) {
	_, c := source(t)
	_, o := source(t)
	o.Parts[1].Ran = true
	require.EqualValues(t, 75, c.Percent())
	c.Add(policytest.Code{Module: "m"})
	require.EqualValues(t, 75, c.Percent(), "another version of it does not")
	c.Add(o)
	require.EqualValues(t, 100, c.Percent())
	require.EqualValues(t, 100, (&policytest.Code{}).Percent(), "of nothing all")
}

func TestReportsShowTheLines(t *testing.T) {
	file, c := source(t)
	var lcov, html, js bytes.Buffer
	require.NoError(t, policytest.WriteLCOV(&lcov, []policytest.Code{c}))
	require.Equal(t, "TN:\nSF:"+file+"\nDA:1,1\nDA:2,1\nDA:3,0\nLF:3\nLH:2\nend_of_record\n", lcov.String())
	_, rs, s := run(t, "version: 1\ncases: [{name: a, to: 192.0.2.1:9, expect: {action: permit}}]\n")
	require.True(t, rs[0].Passed())
	require.NoError(t, policytest.WriteHTML(&html, []policytest.PolicyCoverage{{Policy: "p.yaml", Summary: s}}, []policytest.Code{c}))
	require.Contains(t, html.String(), `<div class="gap"><span class="n">    3</span> c &lt;&amp;&gt;</div>`)
	require.Contains(t, html.String(), `<div class="ran"><span class="n">    1</span> a</div>`)
	require.Contains(t, html.String(), "“no mail” was never asked")
	require.NoError(t, c.WriteJSON(&js))
	require.JSONEq(t, `{"event":"code_coverage","module":"m","percent":75,"unit":"statements","ran":3,"all":4,"gaps":[{"place":"`+file+`:3","what":"never ran"}]}`, js.String())
}
