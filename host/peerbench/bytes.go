package main

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/calloutd/calloutd/host/fwp"
	"github.com/calloutd/calloutd/host/fwps"
)

// appendRequest writes a connection for the peers that hand over bytes: see
// guests/c/bytes.h.
func appendRequest(b []byte, c *fwps.Call) []byte {
	le, to := binary.LittleEndian, c.Connect.Remote
	address, version := to.Addr().As16(), byte(6)
	if to.Addr().Is4() {
		version = 4
	}
	b = le.AppendUint16(append(b, c.In.Protocol, version), to.Port())
	b = le.AppendUint64(le.AppendUint32(b, c.In.ProcessID), c.In.EndpointID)
	return append(append(b, address[:]...), c.In.AppID...)
}

const answerSize = 56

var errAnswer = errors.New("the guest's answer is malformed")

// readAnswer reads what a guest made of it.
func readAnswer(b []byte, v *fwps.Verdict) error {
	v.Action = fwp.ActionPermit
	switch {
	case len(b) == 1 && b[0] == 0:
		return nil
	case len(b) != answerSize || b[0] != 1:
		return errAnswer
	}
	le := binary.LittleEndian
	v.Redirect, v.TargetPID = true, le.Uint32(b[4:])
	v.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), le.Uint16(b[2:]))
	v.Record = append(v.Record[:0], b[8:]...)
	return nil
}
