package ntstatus_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

func TestOkIsNTSuccess(t *testing.T) {
	for st, ok := range map[ntstatus.Status]bool{
		ntstatus.Success: true, ntstatus.Pending: true, ntstatus.EventPending: true, ntstatus.ObjectNameExists: true,
		ntstatus.BufferOverflow: false, ntstatus.DeviceBusy: false, ntstatus.NotFound: false, 0xDEADBEEF: false,
		0x7FFFFFFF: true, 0x80000000: false,
	} {
		require.Equal(t, ok, st.Ok(), "%v", st)
		require.Equal(t, ok, st.Err() == nil, "%v", st)
	}
}

func TestErrorsOfTheStandardLibrary(t *testing.T) {
	for st, want := range map[ntstatus.Status]error{ntstatus.NotFound: fs.ErrNotExist, ntstatus.AccessDenied: fs.ErrPermission,
		ntstatus.Cancelled: context.Canceled, ntstatus.FileForcedClosed: net.ErrClosed} {
		wrapped := fmt.Errorf("wsk: query: %w", st.Err())
		require.ErrorIs(t, wrapped, want)
		require.ErrorIs(t, wrapped, st)
		require.False(t, errors.Is(wrapped, fs.ErrExist))
	}
}

func TestNames(t *testing.T) {
	st, ok := ntstatus.Parse("STATUS_BUFFER_TOO_SMALL")
	require.True(t, ok)
	require.EqualValues(t, 0xC0000023, st)
	require.Equal(t, "STATUS_BUFFER_TOO_SMALL", st.Error())
	st, ok = ntstatus.Parse("STATUS_FINE")
	require.False(t, ok)
	require.Zero(t, st)
	require.Equal(t, "NTSTATUS 0xDEADBEEF", ntstatus.Status(0xDEADBEEF).Error())
}
