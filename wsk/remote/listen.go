package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Listen listens on a Unix socket in the file system: unixpacket for a Service. A
// socket that was left behind by a process that is gone is replaced; one that is
// in use is an error. The mode says who can connect at all.
func Listen(network, path string, mode fs.FileMode) (*net.UnixListener, error) {
	l, err := listen(network, path, mode)
	if errors.Is(err, syscall.EADDRINUSE) && left(network, path) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		l, err = listen(network, path, mode)
	}
	if err != nil {
		return nil, refused(path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("who may connect to %s cannot be set: %w", path, err), l.Close())
	}
	return l, nil
}

// maxPath is what a socket address holds of a path, in bytes.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// refused says what the system's word for it does not.
func refused(path string, err error) error {
	switch info, missing := os.Lstat(path); {
	case errors.Is(err, syscall.EINVAL) && len(path) > maxPath:
		return fmt.Errorf("%s: the path of a socket has %d bytes at most, this one %d: %w", path, maxPath, len(path), err)
	case errors.Is(err, syscall.EADDRINUSE) && missing == nil && info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s is no socket, so it stays as it is: %w", path, fs.ErrExist)
	}
	return err
}

// listen makes a socket that nobody may connect to who may not by the mode, from the moment
// that it is there. What the umask takes away Listen gives back.
func listen(network, path string, mode fs.FileMode) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return setMode(c, mode) }}
	l, err := lc.Listen(context.Background(), network, path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// left reports whether a path is a socket that nobody listens on.
func left(network, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return false
	}
	c, err := net.DialUnix(network, nil, &net.UnixAddr{Name: path, Net: network})
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
