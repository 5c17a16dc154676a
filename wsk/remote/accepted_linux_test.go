package remote

import (
	"testing"

	"github.com/stretchr/testify/require"
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
