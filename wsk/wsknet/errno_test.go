//go:build !plan9

package wsknet

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

func TestErrorsAreThoseThatProgramsLookFor(t *testing.T) {
	err := error(fmt.Errorf("dial: %w", &OpError{Op: "connect", Status: ntstatus.ConnectionRefused}))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorIs(t, err, ntstatus.ConnectionRefused)
	require.NotErrorIs(t, err, syscall.ECONNRESET)
	require.NotErrorIs(t, &OpError{Op: "connect", Status: ntstatus.Cancelled}, syscall.Errno(0), "what has no errno is none")
	require.ErrorIs(t, &OpError{Op: "connect", Status: ntstatus.AccessDenied}, syscall.EACCES)
	require.ErrorIs(t, &OpError{Op: "connect", Status: ntstatus.AccessDenied}, os.ErrPermission)
	require.NotErrorIs(t, &OpError{Op: "connect", Status: ntstatus.ConnectionRefused}, os.ErrPermission)
	for status, timeout := range map[ntstatus.Status]bool{ntstatus.IOTimeout: true, ntstatus.ConnectionRefused: false, ntstatus.Cancelled: false} {
		var e net.Error = &OpError{Op: "connect", Status: status}
		require.Equal(t, timeout, e.Timeout())
	}
	require.True(t, (&OpError{Status: ntstatus.Cancelled, ended: context.DeadlineExceeded}).Timeout())
	require.False(t, (&OpError{Status: ntstatus.Cancelled, ended: context.Canceled}).Timeout())
}
