package guest_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A limit of the process stands for a full disk.
func TestAFullDiskCostsTimeOnly(t *testing.T) {
	dir := t.TempDir()
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &was))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64, Max: was.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &was)) }()
	loadIn(t, dir, "good")
	require.Empty(t, meteredFiles(t, dir))
}
