package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policymodel"
)

// What --with names: policies of other providers, and models.
type beside struct {
	words []string
	cmd   *cobra.Command
}

func (b *beside) flag(cmd *cobra.Command) {
	b.cmd = cmd
	cmd.Flags().Var(b, "with", "policy of another provider, or model of one, that is beside the policy; list: say which models there are")
	_ = cmd.RegisterFlagCompletionFunc("with", completeModels) // fails only for a flag that does not exist
}

// String and Type are of pflag.Value.
func (b *beside) String() string { return strings.Join(b.words, ",") }

// Type is what help calls the value.
func (b *beside) Type() string { return "NAME|FILE" }

// Set takes one more. list is not a policy but a kind of help: whatever else the
// command needs need not be there.
func (b *beside) Set(word string) error {
	if word == "list" || word == "help" {
		b.cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { listModels(cmd.OutOrStdout()) })
		return b.cmd.Flags().Set("help", "true")
	}
	if word == "" {
		return errors.New("expected the name of a model or a policy file")
	}
	b.words = append(b.words, word)
	return nil
}

func listModels(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, m := range policymodel.Models {
		name := m.Name
		if m.Arg != "" {
			name += "[:" + m.Arg + "]"
		}
		fmt.Fprintf(t, "%s\t%s\n", name, m.What)
	}
	t.Flush()
}

func completeModels(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, m := range policymodel.Models {
		out = append(out, cobra.CompletionWithDesc(m.Name, m.What))
	}
	return out, cobra.ShellCompDirectiveDefault // files, too
}

// read reads a policy and what is beside it; nil if nothing is. opening hears of the
// files that they name; nil: nobody does.
func (b *beside) read(path string, opening func(path string)) (*policyfile.File, error) {
	if len(b.words) == 0 {
		return nil, nil
	}
	if opening == nil {
		opening = func(string) {}
	}
	file, err := policyfile.LoadEach(path, opening)
	if err != nil {
		return nil, err
	}
	for _, word := range b.words {
		if !policymodel.Known(word) {
			opening(word)
		}
	}
	return putBeside(file, "", b.words, b.cmd.ErrOrStderr())
}

// putBeside puts policies and models beside a policy. Files are relative to dir; what a
// model leaves out is told.
func putBeside(file *policyfile.File, dir string, words []string, errs io.Writer) (*policyfile.File, error) {
	var others []*policyfile.File
	for _, word := range words {
		other, err := openOther(dir, word, errs)
		if err != nil {
			return nil, err
		}
		others = append(others, other)
	}
	return policyfile.Beside(file, others...)
}

func openOther(dir, word string, errs io.Writer) (*policyfile.File, error) {
	if policymodel.Known(word) {
		text, err := policymodel.Open(dir, word)
		if err != nil {
			return nil, err
		}
		for _, note := range text.Notes {
			fmt.Fprintln(errs, note)
		}
		return text.Policy()
	}
	path, err := policyAt(policyfile.Under(dir, word))
	if err != nil {
		return nil, err
	}
	file, err := policyfile.Load(path)
	if errors.Is(err, os.ErrNotExist) {
		near := ""
		if n := policyfile.Nearest(word, policymodel.Names()); n != "" {
			near = fmt.Sprintf(" (did you mean %q?)", n)
		}
		return nil, fmt.Errorf("--with %s: there is no such file, and no model of that name%s; --with list says which there are", word, near)
	}
	return file, err
}

func newModels() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "models [NAME]",
		Short: "List the models of other providers, or print one as a policy file",
		Long: `Models lists what --with can put beside a policy by name. With a name it prints the model
as a policy file, to be changed and put there as a file. The rules of Windows Firewall
become one as well: netsh advfirewall firewall show rule name=all prints them.`,
		Example: `  calloutd models
  calloutd models vpn-kill-switch > vpn.yaml
  calloutd models windows-firewall:rules.txt > firewall.yaml`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case asJSON && len(args) > 0:
				return errors.New("--json is for the list: a model is a policy file")
			case asJSON:
				return encodeModels(cmd.OutOrStdout())
			case len(args) == 0:
				listModels(cmd.OutOrStdout())
				return nil
			}
			text, err := policymodel.Open("", args[0])
			if err != nil {
				return err
			}
			for _, note := range text.Notes {
				fmt.Fprintln(cmd.ErrOrStderr(), note)
			}
			_, err = cmd.OutOrStdout().Write(text.YAML)
			return err
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func encodeModels(out io.Writer) error {
	for _, m := range policymodel.Models {
		if err := encode(out, map[string]any{"name": m.Name, "argument": m.Arg, "what": m.What}); err != nil {
			return err
		}
	}
	return nil
}
