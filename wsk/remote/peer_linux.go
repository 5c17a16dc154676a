package remote

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/enforce"
)

// peerOf is who connected (SO_PEERCRED).
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if cerr != nil {
		return Peer{}, cerr
	}
	if err != nil {
		return Peer{}, fmt.Errorf("remote: who connected is not known: %w", err)
	}
	app, _ := os.Readlink("/proc/" + strconv.Itoa(int(cred.Pid)) + "/exe") // Gone, or not ours to see: no path.
	return Peer{PID: uint32(cred.Pid), UID: cred.Uid, GID: cred.Gid, AppID: enforce.ProgramPath(app)}, nil
}

func ownOrRoot(p Peer) bool { return p.UID == 0 || p.UID == uint32(os.Geteuid()) }
