package policyrun

import (
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/calloutd/calloutd/host/policyfile"
)

// inputs are the files that a policy names, its lists left out: its modules or their
// source, and the credentials of its proxies.
func inputs(policy string, f *policyfile.File) []string {
	dir := filepath.Dir(policy)
	var files []string
	for _, c := range f.Callouts {
		switch {
		case c.Wasm != "":
			files = append(files, policyfile.Under(dir, c.Wasm))
		case c.GoPackage != "":
			files = append(files, goFiles(policyfile.Under(dir, c.GoPackage))...)
		}
	}
	for _, p := range f.Proxies {
		if p.Credentials.File != "" {
			files = append(files, policyfile.Under(dir, p.Credentials.File))
		}
	}
	return files
}

// goFiles are the source of a Go package and of those below it.
func goFiles(folder string) []string {
	out := []string{filepath.Join(folder, "go.mod")} // which may come later
	_ = filepath.WalkDir(folder, func(file string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && slices.Contains([]string{".go", ".mod", ".sum"}, filepath.Ext(file)) {
			out = append(out, file)
		}
		return nil // What cannot be read is the compiler's to tell.
	})
	return out
}
