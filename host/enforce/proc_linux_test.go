package enforce

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
)

// A /proc of another PID namespace would show another program under a thread's number.
func TestProcOfAnotherPIDNamespaceIsNone(t *testing.T) {
	require.NoError(t, CheckProc())
	require.NoError(t, ownNumbers("Name:\tcalloutd\nPid:\t12\nNSpid:\t12\n"))
	require.NoError(t, ownNumbers("Name:\tcalloutd\nPid:\t12\n"), "before Linux 4.1")
	err := ownNumbers("Name:\tcalloutd\nNSpid:\t4711\t12\n")
	require.EqualError(t, err, "/proc does not show this process: it is that of another PID namespace")
	require.Equal(t, "as root, mount -t proc proc /proc", remedy(Descendants, err))
}

func TestNumbersOfAnotherPIDNamespaceAreNotTheKernels(t *testing.T) {
	require.NoError(t, firstNumbers("pid:[4026531836]", nil))
	require.ErrorContains(t, firstNumbers("pid:[4026532201]", nil), "this is a PID namespace of its own")
	require.ErrorIs(t, firstNumbers("", fs.ErrNotExist), fs.ErrNotExist)
}

func TestRootOfAUserNamespaceIsToldSo(t *testing.T) {
	require.False(t, inUserNamespace("         0          0 4294967295\n"))
	require.True(t, inUserNamespace("         0       1000          1\n"))
	require.False(t, inUserNamespace(""), "where there is no map there are none")
}
