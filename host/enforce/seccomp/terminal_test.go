//go:build linux && (amd64 || arm64)

package seccomp

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func init() {
	// types: type into the controlling terminal, as its user would.
	programs["types"] = func([]string) {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&[]byte("x")[0])))
		say(name(e))
	}
}

// onTerminal has a command begin a session on a terminal, and returns what has been typed there
// when it is called.
func onTerminal(t *testing.T, cmd *exec.Cmd) (typed func() int) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { tty.Close() })
	mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	require.NoError(t, err)
	mode.Lflag &^= unix.ICANON | unix.ECHO
	require.NoError(t, unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, mode))
	cmd.Stdin = tty
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	return func() int {
		waiting, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCINQ)
		require.NoError(t, err)
		return waiting
	}
}

// The shell that has the terminal is not of the tree, and does what is typed.
func TestBypassByTheTerminal(t *testing.T) {
	need(t)
	alone := helper("types")
	typed := onTerminal(t, alone)
	out, err := alone.Output()
	require.NoError(t, err)
	if string(out) == "EIO\n" && os.Geteuid() != 0 {
		t.Log("this kernel lets only root type (dev.tty.legacy_tiocsti)")
	} else {
		require.Equal(t, "ok\n", string(out))
		require.Equal(t, 1, typed())
	}
	cmd := helper("types")
	typed = onTerminal(t, cmd)
	said, _ := supervise(t, Options{ALE: permit}, cmd)
	require.Equal(t, "EPERM\n", said)
	require.Zero(t, typed())
}
