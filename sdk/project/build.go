package project

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/calloutd/calloutd/sdk/project/wholefile"
)

// A MissingError says what to install.
type MissingError struct {
	Dir, Title string
	Tools      []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is written in %s, which needs what is not here:\n  %s", e.Dir, e.Title, strings.Join(e.Tools, "\n  "))
}

// A BuildError is a source that its compiler refused, and said why.
type BuildError struct {
	Command string
	Err     error
}

func (e *BuildError) Error() string { return e.Command + ": " + e.Err.Error() }
func (e *BuildError) Unwrap() error { return e.Err }

// Of says which language the project in a folder is written in.
func Of(dir string) (*Language, error) {
	var found *Language
	var mains []string
	for k := range Languages {
		l := &Languages[k]
		mains = append(mains, l.Main)
		if _, err := os.Stat(filepath.Join(dir, l.Main)); err != nil {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s has both %s and %s: which of them is the policy?", dir, found.Main, l.Main)
		}
		found = l
	}
	if found == nil {
		if info, err := os.Stat(dir); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s is no folder: expected that of a policy project", dir)
		}
		return nil, fmt.Errorf("%s is no policy project: it has none of %s", dir, strings.Join(mains, ", "))
	}
	if err := wholefile.Regular(filepath.Join(dir, found.Main)); err != nil {
		return nil, err
	}
	return found, nil
}

// Build makes the module of the project in a folder and returns its path. What
// the compilers print goes to out. A module that was there stays if it fails, or if
// ctx ends, whose error it returns then.
func Build(ctx context.Context, dir string, out io.Writer) (string, error) {
	l, err := Of(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, Wasm)
	if l.make != nil {
		wasm, err := l.make(dir, l.Main)
		if err != nil {
			return "", err
		}
		return path, wholefile.Write(path, wasm)
	}
	built, err := l.compile(ctx, dir, out)
	if err != nil {
		return "", err
	}
	return path, wholefile.Write(path, built)
}

// compile runs the commands.
func (l *Language) compile(ctx context.Context, dir string, out io.Writer) ([]byte, error) {
	tools, err := l.Find(ctx, dir)
	if err != nil {
		return nil, err
	}
	tmp, err := TempDir("calloutd-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	built := filepath.Join(tmp, "out.wasm")
	for _, command := range l.Build {
		if err := l.run(ctx, dir, tmp, built, tools, command, out); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(built)
}

// TempDir makes a folder for what is not kept. The caller removes it.
func TempDir(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", fmt.Errorf("no folder for temporary files: %w (TMPDIR names another place; on Windows TMP)", err)
	}
	return dir, nil
}

// Find finds the tools for a project in dir, or says all that is missing.
func (l *Language) Find(ctx context.Context, dir string) (map[string]string, error) {
	missing, tools := &MissingError{Dir: dir, Title: l.Title}, map[string]string{}
	for _, t := range l.Tools {
		path, err := t.find(ctx, dir)
		if err != nil {
			missing.Tools = append(missing.Tools, fmt.Sprintf("%s (%v)", t.Install, err))
		}
		tools[t.Name] = path
	}
	if len(missing.Tools) > 0 {
		return nil, missing
	}
	return tools, nil
}

func (l *Language) run(ctx context.Context, dir, tmp, built string, tools map[string]string, command []string, out io.Writer) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	names := strings.NewReplacer("TMP", tmp, "OUT", built, "DIR", abs)
	args := make([]string, len(command))
	for k, w := range command {
		if path, ok := tools[w]; ok {
			args[k] = path
		} else {
			args[k] = names.Replace(w)
		}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), l.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	AskToEnd(cmd)
	err = cmd.Run()
	if stopped := ctx.Err(); stopped != nil {
		return stopped
	}
	var exited *exec.ExitError
	if errors.As(err, &exited) {
		return &BuildError{command[0] + " of " + filepath.Join(dir, l.Main), err}
	}
	return err
}

// AskToEnd has the command of a context asked to end when it is over: a compiler takes away
// then what it made on the way.
func AskToEnd(cmd *exec.Cmd) {
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(os.Interrupt); err == nil || errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return cmd.Process.Kill() // as on Windows
	}
	cmd.WaitDelay = 5 * time.Second
}
