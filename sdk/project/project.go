// Package project makes and builds policy projects: a folder with a policy in
// one of the languages, the SDK it needs, the policy file that asks it, and cases
// that say what is expected. All of it is embedded: a new policy needs no network.
package project

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/calloutd/calloutd/sdk"
)

// The files have .tmpl at their end, since a go.mod cannot be embedded and a Go
// file would be a package of this module.
//
//go:embed all:template
var templates embed.FS

// A Start is what a new project does, and the folder of its files among the templates.
type Start string

const (
	Blocks    Start = "blocks"    // it blocks protocols that are not encrypted
	Redirects Start = "redirects" // it sends web connections to a proxy
)

var valid = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// New makes a project in a folder of its name, which must not exist, under dir.
func New(dir, language, name string, start Start) (*Language, error) {
	l := ByName(language)
	switch {
	case l == nil:
		hint := ""
		if n := near(language); n != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", n)
		}
		return nil, fmt.Errorf("there is no language %q%s: expected one of %s", language, hint, strings.Join(Names(), ", "))
	case !valid.MatchString(name):
		return nil, fmt.Errorf("%q is no name for a policy: expected a small letter, then small letters, digits and hyphens, 40 at most", name)
	}
	files, err := l.files(name, start)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, name)
	if err := os.Mkdir(root, 0o777); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%s exists already and stays as it is", root)
		}
		return nil, err
	}
	for file, content := range files {
		at := filepath.Join(root, filepath.FromSlash(file))
		if err = os.MkdirAll(filepath.Dir(at), 0o777); err == nil {
			err = os.WriteFile(at, content, 0o666)
		}
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(root))
		}
	}
	return l, nil
}

// files are those of a new project, by their path in it.
func (l *Language) files(name string, start Start) (map[string][]byte, error) {
	out := map[string][]byte{}
	begin := "template/" + string(start)
	for _, folder := range []string{"template/all", "template/" + l.Name, begin + "/all", begin + "/" + l.Name} {
		if _, err := fs.Stat(templates, folder); errors.Is(err, fs.ErrNotExist) {
			continue // A language may need nothing but its source.
		}
		err := each(templates, folder, func(file string, src []byte) error {
			text, err := l.fill(src, name, start)
			out[strings.TrimSuffix(file, ".tmpl")] = text
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for from, to := range l.Vendor {
		err := each(sdk.Files, from, func(file string, src []byte) error {
			if !strings.HasSuffix(file, "_test.go") {
				out[path.Join(l.Kit, to, file)] = src // file is empty where from is one
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (l *Language) fill(src []byte, name string, start Start) ([]byte, error) {
	t, err := template.New("").Option("missingkey=error").Parse(string(src))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		*Language
		Policy    string
		Redirects bool
	}{l, name, start == Redirects})
	return b.Bytes(), err
}

// each reads the files of a folder, or one file, by their path in it.
func each(files fs.FS, root string, read func(file string, src []byte) error) error {
	return fs.WalkDir(files, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		src, err := fs.ReadFile(files, p)
		if err != nil {
			return err
		}
		return read(strings.TrimPrefix(strings.TrimPrefix(p, root), "/"), src)
	})
}
