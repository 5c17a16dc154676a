package explore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/calloutd/calloutd/host/fwps"
)

// A Question is a connection that a policy is asked about.
type Question struct {
	Policy             string
	In                 fwps.Incoming
	HostName, PeerName string
}

// A request is what the page sends.
type request struct {
	Policy     string     `json:"policy"` // empty: the first
	Connection Connection `json:"connection"`
}

// parse reads a request about one of these policies. The error is why it is no
// request; what somebody wrote wrong in a field is a mistake.
func parse(body []byte, policies []string) (q Question, mistakes []Mistake, err error) {
	var req request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err = d.Decode(&req); err != nil {
		return q, nil, fmt.Errorf("byte %d: %w", offset(err, d, body), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, nil, fmt.Errorf("byte %d: something follows the request", d.InputOffset())
	}
	q = Question{Policy: req.Policy, HostName: req.Connection.HostName, PeerName: req.Connection.PeerName}
	q.In, mistakes = req.Connection.Incoming()
	switch {
	case q.Policy == "" && len(policies) > 0:
		q.Policy = policies[0]
	case !slices.Contains(policies, q.Policy):
		r := reader{mistakes}
		r.whole("policy", q.Policy, "this is no policy that is explored here")
		mistakes = r.mistakes
	}
	return q, mistakes, nil
}

// offset is how far a request could be read.
func offset(err error, d *json.Decoder, body []byte) int64 {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset
	case errors.As(err, &typ):
		return typ.Offset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return int64(len(body))
	}
	return d.InputOffset()
}
