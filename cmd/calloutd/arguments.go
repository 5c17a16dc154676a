package main

import (
	"errors"
	"fmt"
	"regexp"
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
		return fmt.Errorf("%s: expected %s", r.say(m[1]), cmd.UseLine())
	}
	return err
}

// refusals are cobra's errors about arguments, which have no types.
var refusals = []struct {
	cobra *regexp.Regexp
	say   func(what string) string
}{
	{regexp.MustCompile(`^unknown command "(.*)" for "`), func(word string) string { return fmt.Sprintf("%q is too much", word) }},
	{regexp.MustCompile(`^(?:accepts|requires) .* arg\(s\), (?:only )?received (\d+)$`), func(n string) string {
		return "the number of arguments is " + n
	}},
	{regexp.MustCompile(`^required flag\(s\) "(.*)" not set$`), func(names string) string {
		return flagNames(strings.Split(names, `", "`), " and ") + " must be given"
	}},
	{regexp.MustCompile(`^if any flags in the group \[.*\] are set none of the others can be; \[(.*)\] were all set$`), func(names string) string {
		return flagNames(strings.Fields(names), " and ") + " cannot be given together"
	}},
	{regexp.MustCompile(`^at least one of the flags in the group \[(.*)\] is required$`), func(names string) string {
		return flagNames(strings.Fields(names), " or ") + " must be given"
	}},
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
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
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
