package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
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
		if c.GoPackage == "" {
			files = append(files, policyfile.Under(dir, c.Wasm))
			continue
		}
		files = append(files, goFiles(policyfile.Under(dir, c.GoPackage))...)
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

// hashes are the SHA-256 of files. One that cannot be read has the reason.
type hashes map[string]string

// of hashes files that are not known yet.
func (h hashes) of(files []string) hashes {
	out := hashes{}
	for _, file := range files {
		if sum, ok := h[file]; ok {
			out[file] = sum
			continue
		}
		sum, err := hash(file)
		if err != nil {
			sum = err.Error()
		}
		out[file] = sum
	}
	return out
}

// digest is a SHA-256 of all names and hashes.
func (h hashes) digest() string {
	all := sha256.New()
	for _, file := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(all, "%q %s\n", file, h[file])
	}
	return hex.EncodeToString(all.Sum(nil))
}

func hash(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err = io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
