package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/calloutd/calloutd/host/policytest"
)

// An outcome is what came of all files.
type outcome struct {
	results  []policytest.Result
	policies []policytest.PolicyCoverage
	codes    []policytest.Code // of each module, by all policies that use it
	failed   int
	low      []string // what is below --min
	files    []string // that the cases are made of
}

// uses notes a file that cases are made of.
func (o *outcome) uses(file string) { o.files = append(o.files, file) }

// add puts the code of a callout to that of the same module elsewhere.
func (o *outcome) add(c policytest.Code) {
	for i := range o.codes {
		if o.codes[i].Module == c.Module {
			o.codes[i].Add(c)
			return
		}
	}
	o.codes = append(o.codes, c)
}

func (o *testOptions) report(out io.Writer, all *outcome) error {
	all.count(o.min)
	for _, file := range []struct {
		flag, name string
		write      func(io.Writer) error
	}{
		{"--junit", o.junit, func(w io.Writer) error { return policytest.WriteJUnit(w, all.results) }},
		{"--html", o.html, func(w io.Writer) error { return policytest.WriteHTML(w, all.policies, all.codes) }},
		{"--lcov", o.lcov, func(w io.Writer) error { return policytest.WriteLCOV(w, all.codes) }},
	} {
		if file.name == "" {
			continue
		}
		var b bytes.Buffer
		err := file.write(&b)
		if err == nil {
			err = os.WriteFile(file.name, b.Bytes(), 0o666)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file.flag, err)
		}
	}
	if err := o.write(out, all); err != nil {
		return err
	}
	if all.failed > 0 || len(all.low) > 0 {
		return exitCode(codeNo)
	}
	return nil
}

// count finds what failed and what is below least percent.
func (o *outcome) count(least float64) {
	for i := range o.results {
		if !o.results[i].Passed() {
			o.failed++
		}
	}
	below := func(what string, percent float64) {
		if percent < least {
			o.low = append(o.low, fmt.Sprintf("FAIL %s: %.1f %% reached, --min is %g %%\n", what, percent, least))
		}
	}
	for i := range o.policies {
		below(o.policies[i].Policy, o.policies[i].Percent())
	}
	for i := range o.codes {
		switch c := &o.codes[i]; {
		case c.Unknown() == "":
			below(c.Module, c.Percent())
		case least > 0:
			o.low = append(o.low, fmt.Sprintf("FAIL %s: not known, %s\n", c.Module, c.Unknown()))
		}
	}
}

func (o *testOptions) write(out io.Writer, all *outcome) error {
	switch {
	case o.json:
		return o.writeJSON(out, all)
	case o.tap:
		policytest.WriteTAP(out, all.results)
		var b bytes.Buffer
		all.writeSummary(&b)
		for line := range strings.Lines(b.String()) {
			fmt.Fprint(out, "# "+line)
		}
		return nil
	}
	for i := range all.results {
		all.results[i].WriteText(out, o.verbose)
	}
	all.writeSummary(out)
	return nil
}

func (o *testOptions) writeJSON(out io.Writer, all *outcome) error {
	for i := range all.results {
		if err := all.results[i].WriteJSON(out); err != nil {
			return err
		}
	}
	for i := range all.policies {
		if err := all.policies[i].WriteJSON(out, all.policies[i].Policy); err != nil {
			return err
		}
	}
	for i := range all.codes {
		if err := all.codes[i].WriteJSON(out); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, `{"event":"summary","cases":%d,"failed":%d}`+"\n", len(all.results), all.failed)
	return err
}

func (o *outcome) writeSummary(out io.Writer) {
	for i := range o.policies {
		o.policies[i].WriteText(out, o.policies[i].Policy)
	}
	for i := range o.codes {
		o.codes[i].WriteText(out)
	}
	for _, line := range o.low {
		fmt.Fprint(out, line)
	}
	if o.failed > 0 {
		fmt.Fprintf(out, "FAIL %d of %d cases\n", o.failed, len(o.results))
		return
	}
	fmt.Fprintf(out, "ok   %s\n", counted(len(o.results), "case"))
}
