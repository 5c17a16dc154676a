//go:build unix

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckCacheDir says why a folder is not used for compiled modules: it, or one above it,
// is somebody else's (as HOME may be of who became root) or can be written by everybody.
// Who could put machine code there would have it run. It need not exist.
func CheckCacheDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		if err := trusted(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			if err := CheckCacheDir(real); err != nil {
				return err
			}
		}
		above := filepath.Dir(dir)
		if above == dir {
			return nil
		}
		dir = above
	}
}

func trusted(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%s: its owner is not known", dir)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s is of user %d, and this is user %d", dir, st.Uid, os.Geteuid())
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		return fmt.Errorf("%s can be written by everybody", dir)
	}
	return nil
}
