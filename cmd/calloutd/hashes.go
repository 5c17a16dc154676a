package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// hashes are the SHA-256 of files. One that cannot be read has the reason.
type hashes map[string]string

// hashesOf are those of files as they are now.
func hashesOf(files iter.Seq[string]) hashes {
	h := hashes{}
	for file := range files {
		h.add(file)
	}
	return h
}

// add hashes a file that is not known yet. Before it is read, so that a change
// meanwhile shows.
func (h hashes) add(file string) {
	if _, known := h[file]; known {
		return
	}
	sum, err := hash(file)
	if err != nil {
		sum = err.Error()
	}
	h[file] = sum
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
	f, err := wholefile.Open(file)
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
