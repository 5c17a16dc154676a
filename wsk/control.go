package wsk

import (
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// The control codes of mstcpip.h (IOC-01).
const (
	SIOQueryWFPConnectionRedirectRecords uint32 = 0x980000DC // SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
	SIOQueryWFPConnectionRedirectContext uint32 = 0x980000DD // SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
	SIOSetWFPConnectionRedirectRecords   uint32 = 0x980000DE // SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS
)

// Ioctl is WskControlSocket with WskIoctl. The byte count is the IRP's
// Information, and also *returned if that is not nil (RED-Q-06). Without an
// IRP nothing is done (AMB-05).
func (s *Socket) Ioctl(code uint32, in, out []byte, returned *int, irp *IRP) ntstatus.Status {
	if irp == nil {
		return ntstatus.RequestNotAccepted
	}
	if st := irp.begin(); st != ntstatus.Success {
		return st
	}
	st, n := s.ioctl(code, in, out)
	if returned != nil {
		*returned = n
	}
	return irp.complete(st, n)
}

func (s *Socket) ioctl(code uint32, in, out []byte) (ntstatus.Status, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ntstatus.FileForcedClosed, 0
	}
	if s.cat != ConnectionSocket {
		return ntstatus.InvalidDeviceRequest, 0 // AMB-09
	}
	switch code {
	case SIOQueryWFPConnectionRedirectRecords, SIOQueryWFPConnectionRedirectContext:
		return s.query(code, out)
	case SIOSetWFPConnectionRedirectRecords:
		return s.setRecords(in), 0
	}
	return ntstatus.InvalidDeviceRequest, 0 // WSK-CTL-09
}

// query is spec 8.2: existence is told before size.
func (s *Socket) query(code uint32, out []byte) (ntstatus.Status, int) {
	if s.flow == nil || !s.flow.Redirected || s.flow.Records.Last() == nil {
		return ntstatus.NotFound, 0 // RED-Q-11
	}
	if s.flow.Records.Last().Target.Port() != s.local.Port() {
		return ntstatus.NotFound, 0 // SC-17: the application's own socket
	}
	data := s.flow.Records.Last().Context // AMB-17
	if code == SIOQueryWFPConnectionRedirectRecords {
		sealed, err := s.client.opts.ALE.Seal(s.flow.Records)
		if err != nil {
			return ntstatus.IntegerOverflow, 0
		}
		data = sealed
	}
	switch {
	case len(data) == 0:
		return ntstatus.NotFound, 0 // AMB-11
	case len(out) < len(data):
		return ntstatus.BufferTooSmall, len(data) // RED-Q-07, AMB-01, AMB-03
	}
	return ntstatus.Success, copy(out, data)
}

func (s *Socket) setRecords(in []byte) ntstatus.Status {
	switch {
	case len(in) == 0:
		return ntstatus.InvalidParameter // SC-40
	case s.client.opts.MaySetRecords != nil && !s.client.opts.MaySetRecords():
		return ntstatus.AccessDenied
	}
	rs, err := s.client.opts.ALE.Open(in)
	if err != nil {
		return ntstatus.AccessDenied // AMB-13
	}
	if s.conn != nil { // SC-42: success, without effect.
		s.client.opts.ALE.Release(rs)
		return ntstatus.Success
	}
	s.client.opts.ALE.Release(s.records) // SC-41: the last one counts.
	s.records = rs
	return ntstatus.Success
}
