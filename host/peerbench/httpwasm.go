package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	httpwasm "github.com/http-wasm/http-wasm-host-go/handler"
	nethttp "github.com/http-wasm/http-wasm-host-go/handler/nethttp"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
	"github.com/calloutd/calloutd/host/internal/sample"
)

// startHTTPWasm makes a request of a connection: its headers say what it is, and
// where it goes on the guest has set some.
func startHTTPWasm(ctx context.Context) (*subject, error) {
	wasm, err := embedded("httpwasm")(ctx)
	if err != nil {
		return nil, err
	}
	mw, err := nethttp.NewMiddleware(ctx, wasm, httpwasm.GuestConfig(byteConfig()))
	if err != nil {
		return nil, err
	}
	var record string
	passed := false
	h := mw.NewHandler(ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		record, passed = r.Header.Get("Record"), true
	}))
	r := (&http.Request{Method: http.MethodConnect, Header: http.Header{}}).WithContext(ctx)
	return &subject{
		decide: func(c *fwps.Call, v *fwps.Verdict) error {
			protocol := "udp"
			if c.In.Protocol == fwps.ProtocolTCP {
				protocol = "tcp"
			}
			clear(r.Header)
			r.Header["Protocol"], r.Header["Remote"], r.Header["App"] = []string{protocol}, []string{c.Connect.Remote.String()}, []string{c.In.AppID}
			r.Header["Pid"] = []string{strconv.FormatUint(uint64(c.In.ProcessID), 10)}
			r.Header["Connection-Id"] = []string{strconv.FormatUint(c.In.EndpointID, 10)}
			passed = false
			h.ServeHTTP(nowhere{}, r)
			if v.Action = fwp.ActionPermit; !passed {
				return errors.New("the guest did not let the request pass")
			}
			if record != "" {
				v.Redirect, v.To, v.TargetPID = true, sample.Proxy, sample.PID
				v.Record = append(v.Record[:0], record...)
			}
			return nil
		},
		close: func() { _ = mw.Close(ctx) },
	}, nil
}

// nowhere is a response that nobody reads.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}
