// Package wsknet is Winsock Kernel as net.Conn, net.Listener and a dialer. It
// uses only what wsk exports, and the transport to move bytes.
package wsknet

import (
	"errors"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// An OpError is an operation that ended with a failure: errors.Is finds its status,
// and the system error that package net would have, such as syscall.ECONNREFUSED.
type OpError struct {
	Op     string
	Status ntstatus.Status
	Denial error // for STATUS_ACCESS_DENIED of a policy, the *ale.BlockedError; else nil
}

func (e *OpError) Error() string {
	s := "wsk: " + e.Op + ": " + e.Status.Error()
	if e.Denial != nil {
		s += ": " + e.Denial.Error()
	}
	return s
}

// Unwrap gives the status and the denial.
func (e *OpError) Unwrap() []error {
	if e.Denial == nil {
		return []error{e.Status}
	}
	return []error{e.Status, e.Denial}
}

// explain adds to an error of an operation of s what the policy had against it.
func explain(s *wsk.Socket, err error) error {
	var op *OpError
	if d := s.Denial(); d != nil && errors.As(err, &op) && op.Status == ntstatus.AccessDenied {
		op.Denial = d
	}
	return err
}
