package remote

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// No error is answered as a success.
func TestEveryErrorIsAFailedAnswer(t *testing.T) {
	req := message{op: opQueryRecords, id: 7}
	for _, c := range []struct {
		err    error
		status ntstatus.Status
		rule   string
		why    string
	}{
		{fmt.Errorf("set: %w", &StatusError{Status: ntstatus.NotFound, Rule: "RED-Q-11", Why: "not here"}), ntstatus.NotFound, "RED-Q-11", "not here"},
		{errors.New("the disk is gone"), ntstatus.Unsuccessful, "", "the disk is gone"},
	} {
		m := answer(req, nil, c.err)
		require.False(t, m.status.Ok())
		require.Equal(t, message{op: opQueryRecords | answerBit, id: 7, status: c.status, rule: c.rule, payload: []byte(c.why)}, m)
	}
}
