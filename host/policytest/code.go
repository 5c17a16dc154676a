package policytest

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ianlancetaylor/demangle"

	"github.com/calloutd/calloutd/host/guest/meter"
)

// Code is what of a callout's own code ran.
type Code struct {
	Module string // the file or folder it is made of
	Unit   string // what is counted: statements, lines or blocks
	// Stripped: nothing in the module says which of its code is whose.
	Stripped bool
	// Uncounted says why nothing could be counted; then there are no Parts.
	Uncounted string
	Parts     []CodePart
}

// A CodePart is a piece of code that runs as a whole.
type CodePart struct {
	File      string // of the source; empty: not known
	Line, End int
	Function  string // if there is no File
	Size      int    // in units
	Ran       bool
}

// BlocksOf makes the lines of a module's blocks parts, or, where none are known,
// the blocks. What compilers put in, the libraries of languages and what the SDKs
// do is not the callout's.
func BlocksOf(module string, blocks []meter.Block, ran []bool) Code {
	lined := slices.ContainsFunc(blocks, func(b meter.Block) bool { return len(b.Lines) > 0 })
	if lined {
		return Code{Module: module, Unit: "lines", Parts: linesOf(blocks, ran)}
	}
	goes := slices.ContainsFunc(blocks, func(b meter.Block) bool { return strings.HasPrefix(b.Name, "runtime.") })
	named := slices.ContainsFunc(blocks, func(b meter.Block) bool { return b.Name != "" })
	c := Code{Module: module, Unit: "blocks", Stripped: !named && len(blocks) > byHand}
	for i, b := range blocks {
		name := readable(b.Name)
		if b.Traps || foreignName(name) || goes && !strings.HasPrefix(name, "main.") {
			continue
		}
		c.Parts = append(c.Parts, CodePart{Function: cmp.Or(name, fmt.Sprint("function ", b.Function)), Size: 1, Ran: ran[i]})
	}
	return c
}

// byHand is how many blocks a module can have without names and still be all of its
// author's: one that is written by hand.
const byHand = 200

// Unknown says why a percentage says nothing, or is empty: in a stripped module the
// libraries of its language count as well.
func (c *Code) Unknown() string {
	if c.Stripped {
		return "the module is stripped: --min needs a build with names or debugging information, see --builds"
	}
	return c.Uncounted
}

// Own reports whether a block is the callout's as far as its name and lines say.
func Own(b *meter.Block) bool {
	for _, l := range b.Lines {
		if !foreignFile(l.File) {
			return true
		}
	}
	return len(b.Lines) == 0 && !foreignName(readable(b.Name)) && !strings.HasPrefix(b.Name, "runtime.")
}

// linesOf are lines: one ran when any of its blocks did.
func linesOf(blocks []meter.Block, ran []bool) (parts []CodePart) {
	at := map[meter.Line]int{}
	for i, b := range blocks {
		for _, l := range b.Lines {
			if foreignFile(l.File) {
				continue
			}
			k, known := at[l]
			if !known {
				k = len(parts)
				at[l] = k
				parts = append(parts, CodePart{File: l.File, Line: l.Line, End: l.Line, Size: 1})
			}
			parts[k].Ran = parts[k].Ran || ran[i]
		}
	}
	slices.SortFunc(parts, func(a, b CodePart) int { return cmp.Or(cmp.Compare(a.File, b.File), a.Line-b.Line) })
	return parts
}

// readable is a name as its source has it: Rust's and C++'s are mangled.
func readable(name string) string { return demangle.Filter(name, demangle.NoClones) }

// foreignName says that a function is a library's or the compiler's.
func foreignName(name string) bool {
	if typ, _, ok := strings.Cut(name, " as "); ok && strings.HasPrefix(name, "<") && !strings.Contains(typ, "::") {
		return true // A trait of a type of the language.
	}
	for _, prefix := range []string{"~lib/", "core::", "alloc::", "std::", "compiler_builtins::", "callout::", "calloutd::", "sdk/",
		"../sdk/", "start:../sdk/", "__", "memcmp", "memcpy", "memmove", "memset"} {
		if strings.HasPrefix(strings.TrimLeft(name, "<&"), prefix) {
			return true
		}
	}
	return false
}

// foreignFile says that a source is a library's or an SDK's.
func foreignFile(file string) bool {
	for _, part := range []string{"/rustc/", "/.cargo/", "/lib/std/", "/rustc-", "/library/core/", "/library/alloc/", "/library/std/", "~lib/", "/sdk/",
		"/lib/compiler_rt/", "/node_modules/", "/vendor/"} {
		if strings.Contains("/"+file, part) {
			return true
		}
	}
	return slices.Contains([]string{"callout.h", "callout_json.h", "callout.zig", "abi.zig", "lib.rs"}, path.Base(file))
}

// Add puts what ran of the same module elsewhere to it.
func (c *Code) Add(o Code) {
	if len(o.Parts) != len(c.Parts) {
		return // Another version of it.
	}
	for i := range c.Parts {
		c.Parts[i].Ran = c.Parts[i].Ran || o.Parts[i].Ran
	}
}

// Count is how many units there are and how many ran.
func (c *Code) Count() (ran, all int) {
	for i := range c.Parts {
		all += c.Parts[i].Size
		if c.Parts[i].Ran {
			ran += c.Parts[i].Size
		}
	}
	return ran, all
}

// Percent is the share that ran, 100 of nothing.
func (c *Code) Percent() float64 {
	ran, all := c.Count()
	if all == 0 {
		return 100
	}
	return 100 * float64(ran) / float64(all)
}

// A CodeGap is code that did not run.
type CodeGap struct {
	Place string `json:"place"` // FILE:LINE, FILE:LINE-LINE or a function
	What  string `json:"what"`
}

// Gaps list what did not run: neighbouring lines together, and functions as a
// whole where lines are not known.
func (c *Code) Gaps() (gaps []CodeGap) {
	switch {
	case c.Stripped:
		return nil
	case c.Unit == "blocks":
		return c.functionGaps()
	}
	parts := slices.DeleteFunc(slices.Clone(c.Parts), func(p CodePart) bool { return p.Ran || p.Size == 0 })
	slices.SortStableFunc(parts, func(a, b CodePart) int { return cmp.Or(cmp.Compare(a.File, b.File), a.Line-b.Line) })
	for i := 0; i < len(parts); {
		first, end := parts[i], parts[i].End
		for i++; i < len(parts) && parts[i].File == first.File && parts[i].Line <= end+1; i++ {
			end = max(end, parts[i].End)
		}
		place := fmt.Sprintf("%s:%d", first.File, first.Line)
		if end > first.Line {
			place += fmt.Sprint("-", end)
		}
		gaps = append(gaps, CodeGap{place, "never ran"})
	}
	return gaps
}

func (c *Code) functionGaps() (gaps []CodeGap) {
	type tally struct{ ran, all int }
	byName := map[string]*tally{}
	var order []string
	for _, p := range c.Parts {
		t := byName[p.Function]
		if t == nil {
			t = new(tally)
			byName[p.Function], order = t, append(order, p.Function)
		}
		if t.all++; p.Ran {
			t.ran++
		}
	}
	for _, name := range order {
		switch t := byName[name]; t.ran {
		case t.all:
		case 0:
			gaps = append(gaps, CodeGap{name, "never ran"})
		default:
			gaps = append(gaps, CodeGap{name, fmt.Sprintf("%d of %d blocks never ran", t.all-t.ran, t.all)})
		}
	}
	return gaps
}
