package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/guest/meter"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/host/policyrun"
	"github.com/calloutd/calloutd/host/policytrace"
	"github.com/calloutd/calloutd/sdk/abi"
)

func newInspect() *cobra.Command {
	var asJSON bool
	var config string
	cmd := &cobra.Command{
		Use:   "inspect FILE.wasm",
		Short: "Look into a callout module: what it asks for, what it costs, what it is made of",
		Long: `Inspect reads a module, starts it in the sandbox with the configuration of --config, and
asks it one connection that is always the same (TCP to 192.0.2.1:1). Fuel is about the
time of a simple instruction; inserted is what the meter adds so that it cannot run for
ever.

It ends with code 1 when this host would refuse the module, and says why; a file that is
no module is an error with the place of the byte.`,
		Example: `  calloutd inspect policy.wasm
  calloutd inspect sdk/c/example/split.wasm --config 'proxy 8443 77' --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: moduleFiles,
		RunE: tidily(func(cmd *cobra.Command, args []string) error {
			wasm, err := policyrun.Module(cmd.Context(), "", policyfile.Callout{Wasm: args[0]})
			if err != nil {
				return err
			}
			compiled := doing(cmd.ErrOrStderr(), "compiling "+args[0])
			r, err := guest.Inspect(cmd.Context(), wasm, []byte(config), guest.Options{CacheDir: cacheDir(), CacheDirSize: cacheSize(), CompileApart: true})
			compiled()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(inspection(args[0], r))
			} else {
				err = writeReport(cmd.OutOrStdout(), r)
			}
			if err == nil && r.Refused != nil {
				hint := ""
				if config == "" && errors.Is(r.Refused, guest.ErrConfig) {
					hint = " (it was given none: --config)"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "calloutd: %s would be refused: %s%s\n", args[0], cleanLines(r.Refused.Error()), hint)
				err = exitCode(codeNo)
			}
			return err
		}),
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&config, "config", "", "the configuration, as text")
	return cmd
}

// inspection is the report for programs.
func inspection(file string, r *guest.Report) map[string]any {
	custom, sections := []string{}, []map[string]any{}
	for _, s := range r.Sections {
		if s.Custom {
			custom = append(custom, s.Name)
		}
		sections = append(sections, map[string]any{"name": s.Name, "offset": s.Offset, "bytes": s.Size})
	}
	out := map[string]any{"file": file, "abi": abiOf(r), "bytes": r.Size, "language": r.Language, "capabilities": map[string]any{"required": append([]string{}, r.Required...), "optional": append([]string{}, r.Optional...)},
		"imports": importNames(r), "exports": exportNames(r), "functions": r.Functions, "custom": custom, "sections": sections, "producers": append([]meter.Producer{}, r.Producers...),
		"memory": bounds(r.Memories), "tables": bounds(r.Tables), "pages": r.Pages, "names": r.Names, "dwarf": r.Lines, "start": r.Start,
		"inserted": map[string]int{"entries": r.Inserted.Entries, "loops": r.Inserted.Loops, "batches": r.Inserted.Batches,
			"paths": r.Inserted.Paths, "bulk": r.Inserted.Bulk, "depths": r.Inserted.Depths, "jumps": r.Inserted.Jumps, "bytes": r.Inserted.Bytes}}
	if r.Refused != nil {
		out["refused"] = r.Refused.Error()
	} else {
		out["canned"] = map[string]any{"action": r.Canned.Action, "reason": r.Canned.Reason, "fuel": r.Canned.Fuel}
	}
	return out
}

// abiOf is known from an export, before anything is run.
func abiOf(r *guest.Report) string {
	if !slices.Contains(exportNames(r), abi.ExportMarker) {
		return ""
	}
	return "callout v1"
}

func bounds(ls []meter.Limits) []string {
	out := []string{}
	for _, l := range ls {
		if l.Max < 0 {
			out = append(out, fmt.Sprintf("%d or more", l.Min))
		} else {
			out = append(out, fmt.Sprintf("%d to %d", l.Min, l.Max))
		}
	}
	return out
}

func writeReport(out io.Writer, r *guest.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, policytrace.Clean(fmt.Sprintf(format, args...))) // It names what the module calls so.
	}
	or := func(text, none string) string {
		if text == "" {
			return none
		}
		return text
	}
	row("abi", "%s", or(abiOf(r), "none: it does not export "+abi.ExportMarker))
	row("language", "%s", or(r.Language, "nothing tells"))
	row("size", "%d bytes, %d functions; metered %d bytes", r.Size, r.Functions, r.Inserted.Bytes)
	row("capabilities", "required: %s; optional: %s", or(strings.Join(r.Required, ", "), "none"), or(strings.Join(r.Optional, ", "), "none"))
	row("imports", "%s", or(strings.Join(importNames(r), ", "), "none"))
	row("exports", "%s", or(strings.Join(exportNames(r), ", "), "none"))
	row("memory", "%s pages of 64 KiB%s", or(strings.Join(bounds(r.Memories), ", "), "no"), used(r))
	row("tables", "%s", or(strings.Join(bounds(r.Tables), ", "), "none"))
	row("custom sections", "%s", or(customNames(r), "none"))
	row("a trap names", "%s", traps(r))
	i := r.Inserted
	row("inserted", "payments at %d functions, %d loops, %d small loops, %d long paths, %d bulk operations; %d functions count how deep calls nest; %d jumps made direct",
		i.Entries, i.Loops, i.Batches, i.Paths, i.Bulk, i.Depths, i.Jumps)
	if c := r.Canned; c != nil && c.Err == nil {
		row("canned call", "%s, %s%s", c.Action, fuel(c.Fuel), because(c.Reason))
	}
	return w.Flush()
}

// fuel is none where no function pays: what is short and cannot loop is free.
func fuel(n int) string {
	if n == 0 {
		return "too short to be metered"
	}
	return fmt.Sprintf("%d units of fuel", n)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func used(r *guest.Report) string {
	if r.Pages == 0 {
		return ""
	}
	return fmt.Sprintf(", %d in use after a call", r.Pages)
}

func importNames(r *guest.Report) []string {
	names := []string{}
	for _, i := range r.Imports {
		names = append(names, i.Module+"."+i.Name)
	}
	return names
}

func exportNames(r *guest.Report) []string {
	names := []string{}
	for _, e := range r.Exports {
		names = append(names, e.Name)
	}
	return names
}

func customNames(r *guest.Report) string {
	var names []string
	for _, s := range r.Sections {
		if s.Custom {
			names = append(names, fmt.Sprintf("%s (%d bytes)", s.Name, s.Size))
		}
	}
	return strings.Join(names, ", ")
}

func traps(r *guest.Report) string {
	switch {
	case r.Lines && r.Names:
		return "functions and lines of the source (DWARF)"
	case r.Lines:
		return "lines of the source (DWARF)"
	case r.Names:
		return "functions; no lines (no DWARF)"
	}
	return "neither functions nor lines"
}
