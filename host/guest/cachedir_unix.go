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

// openFlags are for what may be no file.
const openFlags = syscall.O_NONBLOCK | syscall.O_NOFOLLOW

// CheckCacheDir says why a folder is not used for compiled modules: it, or one above it,
// is somebody else's (as HOME may be of who became root) or can be written by others.
// Who could put machine code there would have it run. It need not exist.
func CheckCacheDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	// In a folder such as /tmp what is there has owners, but anybody could put more there.
	if info, err := os.Stat(dir); err == nil && info.Mode()&fs.ModeSticky != 0 && info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others: a folder in it could be used", dir)
	}
	return checkPath(dir)
}

// checkPath is CheckCacheDir for a folder and all above it, in which others may have
// what is theirs.
func checkPath(dir string) error {
	for {
		if err := trusted(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			if err := checkPath(real); err != nil {
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
	case info.Mode()&fs.ModeSticky != 0: // Nobody takes away there, or renames, what is another's.
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%s can be written by everybody", dir)
	case info.Mode().Perm()&0o020 != 0 && st.Gid != st.Uid: // A user's own group has the user's number.
		return fmt.Errorf("%s can be written by group %d", dir, st.Gid)
	}
	return nil
}

// mine reports whether a file is of this user.
func mine(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
