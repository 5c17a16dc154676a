package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/calloutd/calloutd/host/policyfile"
)

// wrongArguments says in the words of the other errors, with what would be right, what
// cobra refuses. Other errors stay as they are.
func wrongArguments(cmd *cobra.Command, err error) error {
	for _, r := range refusals {
		m := r.cobra.FindStringSubmatch(fmt.Sprint(err))
		if m == nil {
			continue
		}
		if cmd.HasSubCommands() && !cmd.Runnable() {
			return noCommand(cmd, m[1])
		}
		return fmt.Errorf("%s: expected %s", r.say(cmd, m[1:]), cmd.UseLine())
	}
	return err
}

// refusals are cobra's errors about arguments, which have no types.
var refusals = []struct {
	cobra *regexp.Regexp
	say   func(cmd *cobra.Command, found []string) string
}{
	{regexp.MustCompile(`^unknown command "(.*)" for "`), func(cmd *cobra.Command, found []string) string { return tooMuch(cmd, found[0]) }},
	{regexp.MustCompile(`^(?:accepts|requires) (?:at least |at most |between \d+ and )?(\d+) arg\(s\), (?:only )?received (\d+)$`), countOf},
	{regexp.MustCompile(`^required flag\(s\) "(.*)" not set$`), func(_ *cobra.Command, found []string) string {
		names := strings.Split(found[0], `", "`)
		near := ""
		if slices.Contains(names, "policy") && isPolicy("policy.yaml") {
			near = didYouMean("--policy policy.yaml")
		}
		return flagNames(names, " and ") + " must be given" + near
	}},
	{regexp.MustCompile(`^if any flags in the group \[.*\] are set none of the others can be; \[(.*)\] were all set$`), func(_ *cobra.Command, found []string) string {
		return flagNames(strings.Fields(found[0]), " and ") + " cannot be given together"
	}},
	{regexp.MustCompile(`^at least one of the flags in the group \[(.*)\] is required$`), func(_ *cobra.Command, found []string) string {
		return flagNames(strings.Fields(found[0]), " or ") + " must be given"
	}},
}

// countOf names the argument that is one too many, or those that are missing.
func countOf(cmd *cobra.Command, found []string) string {
	most, _ := strconv.Atoi(found[0]) // digits both, and not too many
	n, _ := strconv.Atoi(found[1])
	if n > most {
		return tooMuch(cmd, cmd.Flags().Arg(most))
	}
	if words := positional(cmd.Use); n < len(words) {
		return areMissing(words[n:], cmd.ValidArgs)
	}
	return "an argument is missing"
}

// areMissing names arguments, and what the first can be if there are only some.
func areMissing(words, first []string) string {
	is := "is"
	if len(words) > 1 {
		is = "are"
	}
	one := ""
	if len(first) > 0 && words[0] == "LANGUAGE" {
		one = fmt.Sprintf(" (%s: one of %s)", words[0], strings.Join(first, ", "))
	}
	return fmt.Sprintf("%s %s missing%s", strings.Join(words, " and "), is, one)
}

var (
	optional  = regexp.MustCompile(`\[[^\]]*\]|\{[^}]*\}`)
	flagValue = regexp.MustCompile(`--\w+ \S+`)
)

// positional are the arguments that a line of usage says must be there.
func positional(use string) []string {
	words := strings.Fields(flagValue.ReplaceAllString(optional.ReplaceAllString(use, ""), ""))
	for i, w := range words {
		words[i] = strings.ReplaceAll(strings.TrimSuffix(w, "..."), "|", " or ")
	}
	return slices.DeleteFunc(words[1:], func(w string) bool { return w == "--" })
}

// tooMuch says what may have been meant by an argument that has no place: a flag that was
// written with one dash, as Go programs have them, or the policy.
func tooMuch(cmd *cobra.Command, word string) string {
	near := ""
	for _, arg := range os.Args[1:] {
		if name, ok := strings.CutPrefix(arg, "-"); ok && len(name) > 1 && cmd.Flags().Lookup(name) != nil {
			near = "--" + name
		}
	}
	if f := cmd.Flags().Lookup("policy"); near == "" && f != nil && !f.Changed && isPolicy(word) {
		near = "--policy " + word
	}
	return fmt.Sprintf("%q is too much%s", word, didYouMean(near))
}

// isPolicy reports whether an argument looks like a policy that is there.
func isPolicy(word string) bool {
	file, err := policyAt(word)
	if err == nil {
		_, err = os.Stat(file)
	}
	return err == nil && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(file))
}

func flagNames(names []string, and string) string { return "--" + strings.Join(names, and+"--") }

func noCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return fmt.Errorf("there is no command %q%s: %s lists them", word, didYouMean(policyfile.Nearest(word, names)), strings.Replace(cmd.CommandPath(), cmd.Root().Name(), cmd.Root().Name()+" help", 1))
}

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", word)
}

// wrongFlag says what is wrong with a flag, and what would be right.
func wrongFlag(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		if want := valueWords[invalid.GetFlag().Value.Type()]; want != "" {
			err = fmt.Errorf("expected %s", want)
		} else {
			err = invalid.Unwrap()
		}
		return fmt.Errorf("--%s %q: %w", invalid.GetFlag().Name, invalid.GetValue(), err)
	case errors.As(err, &unknown) && cmd.Flags().Lookup(unknown.GetSpecifiedShortnames()) != nil:
		err = fmt.Errorf("there is no flag -%s%s", unknown.GetSpecifiedName(), didYouMean("--"+unknown.GetSpecifiedShortnames()))
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		err = fmt.Errorf("there is no flag -%s", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		near := didYouMean(policyfile.Nearest("--"+unknown.GetSpecifiedName(), names))
		if other := casesWords[unknown.GetSpecifiedName()]; cmd.Flags().Lookup(other) != nil {
			near = didYouMean("--" + other)
		}
		err = fmt.Errorf("there is no flag --%s%s", unknown.GetSpecifiedName(), near)
	}
	return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
}

// casesWords are what cases call what a flag has a shorter name for.
var casesWords = map[string]string{"program": "app", "user": "uid"}

// valueWords are what the values of flags are, by pflag's names of types.
var valueWords = map[string]string{
	"bool": "true or false", "int": "a number", "int64": "a number", "uint32": "a number from 0", "uint64": "a number from 0", "float64": "a number",
	"intSlice": "numbers, with commas between", "duration": "a time, such as 90s or 10m",
}
