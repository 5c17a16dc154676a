package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A socket that was forgotten between a request's finding it and asking the layers about it is of
// no use to the request, which looks again. It waits for nobody.
func TestASocketThatIsForgottenHasNoFlow(t *testing.T) {
	var a accepted
	a.end()
	f, err := a.authorize(t.Context(), nil, Peer{})
	require.NoError(t, err)
	require.Nil(t, f)
}

func TestFailuresHaveAStatus(t *testing.T) {
	for err, want := range map[error]ntstatus.Status{
		context.DeadlineExceeded: ntstatus.IOTimeout,
		context.Canceled:         ntstatus.Cancelled,
		errors.New("other"):      ntstatus.Unsuccessful,
	} {
		require.ErrorIs(t, failure(fmt.Errorf("the layers: %w", err)), want)
	}
}
