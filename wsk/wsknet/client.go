package wsknet

import "github.com/calloutd/calloutd/wsk"

// NewClient registers a client with a provider of its own and captures it: what
// a program needs that only dials and listens. The caller owes the close, after
// that of every connection. It waits for them: half a minute at most for those that
// were closed and whose peer was not, see Conn.Close.
func NewClient(o wsk.Options) (client *wsk.Client, close func(), err error) {
	registration, npi := new(wsk.Registration), wsk.ProviderNPI{}
	if st := wsk.NewProvider(o).Register(&wsk.ClientNPI{Dispatch: &wsk.ClientDispatch{Version: wsk.Version10}}, registration); !st.Ok() {
		return nil, nil, st.Err()
	}
	if st := registration.CaptureProviderNPI(wsk.InfiniteWait, &npi); !st.Ok() {
		registration.Deregister()
		return nil, nil, st.Err()
	}
	return npi.Client, func() {
		registration.ReleaseProviderNPI()
		registration.Deregister()
	}, nil
}
