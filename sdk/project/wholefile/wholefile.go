// Package wholefile reads and replaces files that people wrote. On a full disk, or when
// the process ends in the middle, what was there stays.
package wholefile

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file, whole or not at all. One that is there keeps its mode, and a
// link stays one. What is no file, such as /dev/stdout, is written to.
func Write(path string, content []byte) error {
	path = behind(path)
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, content, 0o666)
	}
	tmp, name, err := create(path)
	if err != nil {
		return err
	}
	defer os.Remove(name) // It has another name by then, if all went well.
	_, err = tmp.Write(content)
	if info != nil {
		err = errors.Join(err, tmp.Chmod(info.Mode().Perm()))
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return about(path, err)
	}
	return about(path, os.Rename(name, path))
}

// Replaceable says why a file could not be written, before there is anything to write.
func Replaceable(path string) error {
	tmp, name, err := create(behind(path))
	if err != nil {
		return err
	}
	return errors.Join(tmp.Close(), os.Remove(name))
}

// behind is the file that a link names; any other path as it is.
func behind(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return path
}

// create makes a file beside another one, with the mode that a new file gets.
func create(path string) (*os.File, string, error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-"+rand.Text()[:10])
	tmp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	return tmp, name, about(path, err)
}

// about names the file that was meant, not the one beside it.
func about(path string, err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return &fs.PathError{Op: p.Op, Path: path, Err: p.Err}
	case errors.As(err, &l):
		return &fs.PathError{Op: "replace", Path: path, Err: l.Err}
	}
	return err
}
