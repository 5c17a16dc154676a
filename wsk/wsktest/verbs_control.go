package wsktest

import (
	"encoding/binary"

	"github.com/calloutd/calloutd/wsk"
	"github.com/calloutd/calloutd/wsk/ntstatus"
)

var codes = map[string]uint32{
	"records": wsk.SIOQueryWFPConnectionRedirectRecords, "context": wsk.SIOQueryWFPConnectionRedirectContext,
	"set-records": wsk.SIOSetWFPConnectionRedirectRecords, "endpoint-handle": wsk.SIOQueryWFPALEEndpointHandle,
	"address-list": wsk.SIOAddressListQuery, "address-list-change": wsk.SIOAddressListChange, "address-list-sort": wsk.SIOAddressListSort,
	"loopback-fast-path": wsk.SIOLoopbackFastPath, "keep-alive-vals": wsk.SIOKeepAliveVals,
	"ideal-send-backlog": wsk.SIOWSKQueryIdealSendBacklog, "receive-backlog": wsk.SIOWSKQueryReceiveBacklog, "inspect-id": wsk.SIOWSKQueryInspectID,
	"register-extension": wsk.SIOWSKRegisterExtension, "remote-address": wsk.SIOWSKSetRemoteAddress, "sendto-address": wsk.SIOWSKSetSendToAddress,
	"silent-mode": wsk.SIOWSKSetTCPSilentMode,
}

var socketOptions = map[string][2]uint32{
	"reuse-addr": {wsk.SolSocket, wsk.SOReuseAddr}, "exclusive": {wsk.SolSocket, wsk.SOExclusiveAddrUse}, "keep-alive": {wsk.SolSocket, wsk.SOKeepAlive},
	"broadcast": {wsk.SolSocket, wsk.SOBroadcast}, "rcvbuf": {wsk.SolSocket, wsk.SORcvBuf}, "sndbuf": {wsk.SolSocket, wsk.SOSndBuf}, "type": {wsk.SolSocket, wsk.SOType},
	"conditional-accept": {wsk.SolSocket, wsk.SOConditionalAccept}, "original-dst": {wsk.SolSocket, wsk.SOOriginalDst}, "security": {wsk.SolSocket, wsk.SOWSKSecurity},
	"v6only": {uint32(wsk.IPProtoIPv6), wsk.IPv6V6Only}, "no-delay": {uint32(wsk.IPProtoTCP), wsk.TCPNoDelay},
	"want-records": {uint32(wsk.IPProtoIP), wsk.IPWFPRedirectRecords}, "want-context": {uint32(wsk.IPProtoIP), wsk.IPWFPRedirectContext},
	"want-records6": {uint32(wsk.IPProtoIPv6), wsk.IPWFPRedirectRecords}, "want-context6": {uint32(wsk.IPProtoIPv6), wsk.IPWFPRedirectContext},
}

func controlCall(typ wsk.ControlSocketType) func(*world, *statement) (*invocation, error) {
	return onSocket(func(w *world, s *statement, sock *wsk.Socket, inv *invocation) error {
		code, level, err := w.code(typ, s.args[1])
		if err != nil {
			return err
		}
		if l, ok := s.keys["level"]; ok {
			n, err := w.number(l)
			if err != nil {
				return err
			}
			level = uint32(n)
		}
		var in []byte
		if v, ok := s.keys["in"]; ok {
			if in, err = w.blob(v); err != nil {
				return err
			}
		}
		if typ == wsk.SetOption {
			if in, err = w.optionValue(s.args[2]); err != nil {
				return err
			}
		}
		size := s.keys["out"]
		if typ == wsk.GetOption && size == "" {
			size = "128"
		}
		if inv.out, err = w.buffer(size); err != nil {
			return err
		}
		if s.keys["returned"] != "no" {
			inv.returned = new(int)
		}
		inv.do = func(p *wsk.IRP) ntstatus.Status {
			return sock.ControlSocket(typ, code, level, in, inv.out, inv.returned, p)
		}
		inv.then, inv.results = outputOf(inv)
		return nil
	})
}

// outputOf are the results of a call that fills a buffer: its bytes, and their
// number if they are a ULONG or a SIZE_T.
func outputOf(inv *invocation) (func(*pending) error, func() map[string]any) {
	n := 0
	return func(p *pending) error { n = p.status().Information; return nil }, func() map[string]any {
		r := map[string]any{"data": inv.out[:n]}
		switch n {
		case 4:
			r["value"] = int(binary.LittleEndian.Uint32(inv.out))
		case 8:
			r["value"] = int(binary.LittleEndian.Uint64(inv.out))
		}
		return r
	}
}

func (w *world) code(typ wsk.ControlSocketType, s string) (code, level uint32, err error) {
	if typ == wsk.Ioctl {
		if c, ok := codes[s]; ok {
			return c, 0, nil
		}
	} else if o, ok := socketOptions[s]; ok {
		return o[1], o[0], nil
	}
	n, err := w.number(s)
	return uint32(n), wsk.SolSocket, err
}

// optionValue is a number as a ULONG, or bytes.
func (w *world) optionValue(s string) ([]byte, error) {
	if n, err := w.number(s); err == nil {
		return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, nil
	}
	return w.blob(s)
}

func controlClientCall(w *world, s *statement) (*invocation, error) {
	c, err := w.clientOf()
	if err != nil {
		return nil, err
	}
	named := map[string]uint32{"transport-list-query": wsk.TransportListQuery, "transport-list-change": wsk.TransportListChange, "cache-sd": wsk.CacheSD,
		"release-sd": wsk.ReleaseSD, "tdi-mapping": wsk.TDIDeviceNameMapping, "static-events": wsk.SetStaticEventCallbacks, "tdi-behavior": wsk.TDIBehavior}
	code, ok := named[s.args[0]]
	if !ok {
		n, err := w.number(s.args[0])
		if err != nil {
			return nil, err
		}
		code = uint32(n)
	}
	inv := new(invocation)
	var in []byte
	if v, ok := s.keys["in"]; ok {
		if in, err = w.blob(v); err != nil {
			return nil, err
		}
		if m, ok := eventNames[v]; ok {
			in = wsk.EventCallbackControl{NpiID: wsk.NPIWSKInterfaceID, EventMask: m}.Append(nil)
		}
	}
	if inv.out, err = w.buffer(s.keys["out"]); err != nil {
		return nil, err
	}
	if s.keys["returned"] != "no" {
		inv.returned = new(int)
	}
	inv.do = func(p *wsk.IRP) ntstatus.Status { return c.ControlClient(code, in, inv.out, inv.returned, p) }
	inv.then, inv.results = outputOf(inv)
	return inv, nil
}
