package guest

import (
	"bytes"
	"errors"
	"time"

	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/sdk/abi"
)

// later is how much later a question is asked again: the day is another one then, and
// so are the hour, the minute, the second and what is even.
const later = int64(27*time.Hour + 13*time.Minute + 11*time.Second + 7)

var errUnsteady = errors.New("it says that its answer is cacheable, and gives another one at another time, for another connection or when it is asked again")

// steady asks a guest again that said its answer is cacheable: neither the clock nor
// the connection's number may matter to it. The answer is in the block, and v.
func (i *instance) steady(c *fwps.Call, v *fwps.Verdict) error {
	if c.State != 0 || c.FlowContext != 0 || i.cookie() != 0 {
		return nil // Nobody keeps that one.
	}
	in, again := *c.In, *c
	in.EndpointID, in.Flow, again.In = ^in.EndpointID, nil, &in
	var w fwps.Verdict
	w.Reset()
	if err := encode(i.block, &again, int64(le.Uint64(i.block[abi.ReqMonotonic:]))+later); err != nil {
		return err
	}
	if _, err := i.ask(&again, &w); err != nil {
		return err
	}
	if i.cookie() != 0 || w.Action != v.Action || w.ClearActionRight != v.ClearActionRight || w.Redirect != v.Redirect || w.To != v.To || w.TargetPID != v.TargetPID ||
		w.NoHandle != v.NoHandle || w.Reason != v.Reason || !bytes.Equal(w.Record, v.Record) || !bytes.Equal(w.Context, v.Context) {
		return errUnsteady
	}
	return nil
}
