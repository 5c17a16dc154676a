package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
)

// cacheMiB is the variable that says how much compiled modules may take.
const cacheMiB = "CALLOUTD_CACHE_MIB"

// cacheDir is where compiled modules are kept; empty: they are compiled each time.
func cacheDir() string {
	cache, err := os.UserCacheDir()
	if err != nil || os.Getenv(cacheMiB) == "0" {
		return ""
	}
	return filepath.Join(cache, "calloutd", "wasm")
}

// cacheSize is how much they may take, in bytes; 0: as much as guest.Options says.
func cacheSize() int64 {
	size, _ := strconv.ParseInt(os.Getenv(cacheMiB), 10, 64) // checkCache has looked at it.
	return size << 20
}

func checkCache(*cobra.Command, []string) error {
	said := os.Getenv(cacheMiB)
	if size, err := strconv.ParseInt(said, 10, 64); said == "" || err == nil && size >= 0 && size <= math.MaxInt64>>20 {
		return nil
	}
	return fmt.Errorf("%s=%s: expected a number of MiB, such as 1024, or 0 to keep no compiled modules", cacheMiB, said)
}
