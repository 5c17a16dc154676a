package project

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A check says why a tool that is there cannot be used.
type check func(ctx context.Context, path string) error

// find looks for a tool; the first that works is taken. If none does, the error has
// what is wrong with each.
func (t *Tool) find(ctx context.Context, dir string) (string, error) {
	var why []string
	for _, at := range t.At {
		path := at
		if strings.ContainsRune(at, '/') && !filepath.IsAbs(at) {
			path = filepath.Join(dir, filepath.FromSlash(at))
			if _, err := os.Stat(path); err != nil {
				continue
			}
		} else {
			found, err := exec.LookPath(at)
			if err != nil {
				continue
			}
			path = found
		}
		if t.check != nil {
			if err := t.check(ctx, path); err != nil {
				why = append(why, fmt.Sprintf("%s: %v", path, err))
				continue
			}
		}
		return filepath.Abs(path)
	}
	if why == nil {
		return "", errors.New("not found")
	}
	return "", errors.New(strings.Join(why, "; "))
}

// ask runs a tool for what it prints. Where it says why it fails, as rustup does that has
// no toolchain, that is in the error.
func ask(ctx context.Context, path string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).Output()
	var exited *exec.ExitError
	if errors.As(err, &exited) && len(exited.Stderr) > 0 {
		said, _, _ := strings.Cut(strings.TrimSpace(string(exited.Stderr)), "\n")
		return "", errors.New(said)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func clangTarget(ctx context.Context, path string) error {
	targets, err := ask(ctx, path, "--print-targets")
	if err == nil && !strings.Contains(targets, "wasm32") {
		err = errors.New("it has no target wasm32")
	}
	return err
}

// goUsable asks for the version, and for the cache without which Go builds nothing.
func goUsable(ctx context.Context, path string) error {
	answer, err := ask(ctx, path, "env", "GOVERSION", "GOCACHE")
	if err != nil {
		return err
	}
	version, cache, _ := strings.Cut(answer, "\n")
	if cache == "off" {
		return errors.New("it has no folder for its cache: set GOCACHE or HOME")
	}
	minor, _ := strings.CutPrefix(version, "go1.")
	minor, _, _ = strings.Cut(minor, ".")
	if n, err := strconv.Atoi(minor); err == nil && n < 26 {
		return fmt.Errorf("it is %s", version)
	}
	return nil // A version that is no release is taken for a new one.
}

// rustTarget asks whether the target's standard library is there: a compiler that
// rustup installed does not have that of Debian's package, and the other way round.
func rustTarget(ctx context.Context, path string) error {
	dir, err := ask(ctx, path, "--print", "target-libdir", "--target", "wasm32-unknown-unknown")
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return errors.New("it has no target wasm32-unknown-unknown: " + addTarget(dir))
	}
	return nil
}

// addTarget says how the target comes to the compiler whose library would be in dir. One of
// rustup has its own folder, and may not be the toolchain that rustup would add it to unasked.
func addTarget(dir string) string {
	parts := strings.Split(filepath.ToSlash(dir), "/")
	if at := slices.Index(parts, "toolchains"); at >= 0 && at+1 < len(parts) {
		return "rustup target add --toolchain " + parts[at+1] + " wasm32-unknown-unknown"
	}
	return "apt-get install libstd-rust-dev-wasm32, or the package that your system has in its place"
}

func zigVersion(ctx context.Context, path string) error {
	version, err := ask(ctx, path, "version")
	if err == nil && !strings.HasPrefix(version, "0.11.") {
		err = fmt.Errorf("it is %s, and the language changed since 0.11", version)
	}
	if err != nil {
		return err
	}
	if _, err := ask(ctx, path, "env"); err != nil { // which names the folder
		return fmt.Errorf("it has no folder for its cache: set HOME or ZIG_GLOBAL_CACHE_DIR (%w)", err)
	}
	return nil
}
