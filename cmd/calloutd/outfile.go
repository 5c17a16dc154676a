package main

import (
	"fmt"
	"os"
)

// isFile refuses a report on standard output, which has the results.
func isFile(flag, path string) error {
	if path == "-" {
		return fmt.Errorf("%s -: expected a file: standard output has the results", flag)
	}
	return nil
}

// canWrite says before a long measurement that its picture could not be written.
func canWrite(flag, path string) error {
	if err := isFile(flag, path); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil // A pipe has a reader, who would see an end.
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return f.Close()
}
