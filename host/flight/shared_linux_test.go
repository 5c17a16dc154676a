package flight_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/calloutd/calloutd/host/flight"
)

// A part that another process is writing is no end that was cut off.
func TestAppendLeavesWhatAnotherProcessIsWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	write(t, path, header, full())
	one := file(t, path)
	other, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_EX))
	_, err = other.Write(one[:len(one)/2])
	require.NoError(t, err)

	appended := make(chan *flight.Writer)
	go func() {
		w, err := flight.Append(path, header)
		if err != nil {
			t.Error(err)
		}
		appended <- w
	}()
	time.Sleep(50 * time.Millisecond) // Time to take it away.
	_, err = other.Write(one[len(one)/2:])
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_UN))
	w := <-appended

	// So are the parts of the one that was there first.
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_EX))
	require.NoError(t, w.Write(full()))
	_, err = other.Write(one[:len(one)/2])
	require.NoError(t, err)
	closed := make(chan error)
	go func() { closed <- w.Close() }()
	time.Sleep(50 * time.Millisecond)
	_, err = other.Write(one[len(one)/2:])
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_UN))
	require.NoError(t, <-closed)

	got, r, err := read(t, file(t, path))
	require.NoError(t, err)
	require.Len(t, got, 4)
	require.False(t, r.Torn())
}

// Who has written a part holds nobody up.
func TestAWriterThatWaitsHasNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	w, err := flight.Append(path, header)
	require.NoError(t, err)
	require.NoError(t, w.Write(full()))
	require.Eventually(t, func() bool { return len(file(t, path)) > 0 }, time.Minute, time.Millisecond)
	other, err := os.Open(path)
	require.NoError(t, err)
	defer other.Close()
	require.Eventually(t, func() bool { return unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }, time.Minute, time.Millisecond)
	require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_UN))
	require.NoError(t, w.Close())
}

// Another process may continue the file, so half a part must not stay. A limit of the
// process stands for a full disk.
func TestOfAPartThatDoesNotFitNothingStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.flight")
	write(t, path, header, full())
	one := file(t, path)
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &was))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(len(one)) + 20, Max: was.Max}))
	w, err := flight.Append(path, header)
	if err == nil {
		err = errors.Join(w.Write(full()), w.Close())
	}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &was))
	require.ErrorIs(t, err, unix.EFBIG)
	require.Equal(t, one, file(t, path))
}
