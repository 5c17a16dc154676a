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

	"github.com/calloutd/calloutd/host/guest"
	"github.com/calloutd/calloutd/host/policyfile"
	"github.com/calloutd/calloutd/sdk/project"
	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// Module reads the module of a callout whose policy is in the folder dir, or
// builds its Go package, which needs Go.
func Module(ctx context.Context, dir string, c policyfile.Callout) ([]byte, error) {
	if c.GoPackage == "" {
		return readModule(policyfile.Under(dir, c.Wasm))
	}
	folder := policyfile.Under(dir, c.GoPackage)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder with Go source", folder)
	}
	return GoBuild(ctx, folder)
}

func readModule(path string) ([]byte, error) {
	f, err := wholefile.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && filepath.Base(path) == project.Wasm && isProject(filepath.Dir(path)):
		return nil, fmt.Errorf("%w: calloutd build %s makes it", err, filepath.Dir(path))
	case err != nil:
		return nil, err
	}
	defer f.Close()
	room := bytes.MinRead
	const most = guest.MaxModuleSize + 1 // One byte more, so that the loader sees that it is too long.
	if s, err := f.Stat(); err == nil {
		room += int(min(s.Size(), most)) // Read at once.
	}
	b := bytes.NewBuffer(make([]byte, 0, room))
	_, err = b.ReadFrom(io.LimitReader(f, most))
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
	return readModule(out)
}
