package wsk_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// A pointer that is nil is no events, also inside the interface.
func TestDispatchThatIsNilHasNoEvents(t *testing.T) {
	w := open(t, wsk.Debug{})
	for category, d := range map[wsk.Category]wsk.Dispatch{
		wsk.ListenSocket: (*wsk.ClientListenDispatch)(nil), wsk.ConnectionSocket: (*wsk.ClientConnectionDispatch)(nil),
		wsk.StreamSocket: (*wsk.ClientStreamDispatch)(nil),
	} {
		s := w.socket(t, category, d)
		in := wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: wsk.EventReceive}.Append(nil)
		require.Equal(t, ntstatus.InvalidParameter, s.ControlSocket(wsk.SetOption, wsk.SOWSKEventCallback, wsk.SolSocket, in, nil, nil, nil))
		shut(t, s)
	}
}
