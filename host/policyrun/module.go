package policyrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// Module reads the module of a callout whose policy is in the folder dir, or
// builds its Go package, which needs Go.
func Module(ctx context.Context, dir string, c policyfile.Callout) ([]byte, error) {
	if c.GoPackage == "" {
		return readModule(ctx, policyfile.Under(dir, c.Wasm))
	}
	folder := policyfile.Under(dir, c.GoPackage)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder with Go source", folder)
	}
	return GoBuild(ctx, folder)
}

const (
	// A module that somebody just wrote may be half of one. It has to stay as it is for a while,
	// and nobody waits longer than some tries.
	settles     = 100 * time.Millisecond
	settleTries = 20
)

// readModule reads a file that is whole: one that replaced another by its name is at once.
func readModule(ctx context.Context, path string) ([]byte, error) {
	var before fs.FileInfo
	for range settleTries {
		b, now, err := readSettled(path, before)
		if b != nil || err != nil {
			return b, err
		}
		before = now
		select {
		case <-time.After(settles):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, fmt.Errorf("%s is being written, and so may be half a module: it can be loaded once it is whole", path)
}

// readSettled returns nothing of a file that was or is written: not if its time is as long ago as
// before, or as it says itself. The clock may be another one.
func readSettled(path string, before fs.FileInfo) ([]byte, fs.FileInfo, error) {
	f, err := wholefile.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.Base(path) == project.Wasm && isProject(filepath.Dir(path)):
		return nil, nil, fmt.Errorf("%w: calloutd build %s makes it", err, filepath.Dir(path))
	case err != nil:
		return nil, nil, err
	}
	defer f.Close()
	now, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if time.Since(now.ModTime()) < settles && !unchanged(before, now) || hasWriter(f) {
		return nil, now, nil
	}
	b, err := readAll(f)
	if err != nil {
		return nil, nil, err
	}
	if after, err := f.Stat(); err != nil || !unchanged(now, after) {
		return nil, after, err
	}
	return b, now, nil
}

func unchanged(before, now fs.FileInfo) bool {
	return before != nil && os.SameFile(before, now) && before.Size() == now.Size() && before.ModTime().Equal(now.ModTime())
}

// readAll is never nil where there is no error.
func readAll(f *os.File) ([]byte, error) {
	room := bytes.MinRead
	const most = guest.MaxModuleSize + 1 // One byte more, so that the loader sees that it is too long.
	if s, err := f.Stat(); err == nil {
		room += int(min(s.Size(), most)) // Read at once.
	}
	b := bytes.NewBuffer(make([]byte, 0, room))
	_, err := b.ReadFrom(io.LimitReader(f, most))
	return b.Bytes(), err
}

func isProject(folder string) bool {
	_, err := project.Of(folder)
	return err == nil
}

// GoBuild builds the callout whose Go package is in a folder, as a project would but
// in the workspace it is in, with more flags of go build.
func GoBuild(ctx context.Context, folder string, flags ...string) ([]byte, error) {
	tmp, err := project.TempDir("calloutd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "callout.wasm")
	build := strings.NewReplacer("OUT", out)
	var args []string
	for _, word := range project.GoBuild {
		args = append(args, build.Replace(word))
	}
	args = slices.Insert(args, 2, flags...) // after go build
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), project.GoEnv...)
	project.AskToEnd(cmd)
	msg, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("go is not installed: install it, or build the module elsewhere and name it with wasm")
	case err != nil:
		return nil, fmt.Errorf("go build in %s: %w\n%s", folder, err, bytes.TrimSpace(msg))
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}
