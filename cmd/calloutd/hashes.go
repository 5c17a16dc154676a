package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

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
