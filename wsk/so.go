package wsk

import (
	"errors"

	"github.com/calloutd/calloutd/wsk/ntstatus"
)

// Levels of options.
const (
	SolSocket uint32 = 0xFFFF // SOL_SOCKET
)

// Options of level SOL_SOCKET.
const (
	SOReuseAddr         uint32 = 0x0004     // SO_REUSEADDR
	SOKeepAlive         uint32 = 0x0008     // SO_KEEPALIVE
	SOBroadcast         uint32 = 0x0020     // SO_BROADCAST
	SOExclusiveAddrUse  uint32 = 0xFFFFFFFB // SO_EXCLUSIVEADDRUSE
	SOSndBuf            uint32 = 0x1001     // SO_SNDBUF
	SORcvBuf            uint32 = 0x1002     // SO_RCVBUF
	SOType              uint32 = 0x1008     // SO_TYPE
	SOConditionalAccept uint32 = 0x3002     // SO_CONDITIONAL_ACCEPT
	SOOriginalDst       uint32 = 0x300F     // SO_ORIGINAL_DST
	SOWSKSecurity       uint32 = 0x4001     // SO_WSK_SECURITY
	SOWSKEventCallback  uint32 = 0x4002     // SO_WSK_EVENT_CALLBACK
)

// Options of other levels.
const (
	IPv6V6Only uint32 = 27 // IPV6_V6ONLY, level IPPROTO_IPV6
	TCPNoDelay uint32 = 1  // TCP_NODELAY, level IPPROTO_TCP
)

// options are what SetOption set. They last for the socket's life.
type options struct {
	dualStack, reuse, exclusive, conditional, keepAlive, broadcast, delay, wantRecords, wantContext bool
	rcvbuf, sndbuf                                                                                  uint32
	security                                                                                        SecurityDescriptor
}

// A runner answers a code at once; see control.run.
type runner = func(s *Socket, code uint32, in, out []byte) (ntstatus.Status, int)

type socketOption struct {
	name       string
	on         Category
	beforeBind bool
	field      func(*options) *bool
	inverted   bool // the field is the opposite of the option
	apply      func(s *Socket) error
}

// boolean are the options that are on or off.
var boolean = map[[2]uint32]socketOption{
	{SolSocket, SOReuseAddr}:          {name: "SO_REUSEADDR", on: transports, beforeBind: true, field: func(o *options) *bool { return &o.reuse }},
	{SolSocket, SOExclusiveAddrUse}:   {name: "SO_EXCLUSIVEADDRUSE", on: transports, beforeBind: true, field: func(o *options) *bool { return &o.exclusive }},
	{SolSocket, SOConditionalAccept}:  {name: "SO_CONDITIONAL_ACCEPT", on: listens, beforeBind: true, field: func(o *options) *bool { return &o.conditional }},
	{SolSocket, SOBroadcast}:          {name: "SO_BROADCAST", on: DatagramSocket, field: func(o *options) *bool { return &o.broadcast }},
	{SolSocket, SOKeepAlive}:          {name: "SO_KEEPALIVE", on: connects, field: func(o *options) *bool { return &o.keepAlive }, apply: (*Socket).applyOptions},
	{uint32(IPProtoIPv6), IPv6V6Only}: {name: "IPV6_V6ONLY", on: transports, beforeBind: true, inverted: true, field: func(o *options) *bool { return &o.dualStack }},
	{uint32(IPProtoTCP), TCPNoDelay}:  {name: "TCP_NODELAY", on: connects, inverted: true, field: func(o *options) *bool { return &o.delay }, apply: (*Socket).applyOptions},
}

// socketOptions are the codes of SetOption and GetOption. All need an IRP but
// the enabling of event callbacks (WSK-CTL-08).
var socketOptions = makeOptions()

func makeOptions() map[option]*control {
	m := map[option]*control{
		{SetOption, SolSocket, SORcvBuf}: {name: "SO_RCVBUF", on: connects | DatagramSocket, run: setting(false, func(s *Socket, v uint32) error { s.opts.rcvbuf = v; return s.applyOptions() })},
		{SetOption, SolSocket, SOSndBuf}: {name: "SO_SNDBUF", on: connects | DatagramSocket, run: setting(false, func(s *Socket, v uint32) error { s.opts.sndbuf = v; return s.applyOptions() })},
		{GetOption, SolSocket, SORcvBuf}: {name: "SO_RCVBUF", on: connects | DatagramSocket, run: getting(func(s *Socket) uint32 { return s.opts.rcvbuf })},
		{GetOption, SolSocket, SOSndBuf}: {name: "SO_SNDBUF", on: connects | DatagramSocket, run: getting(func(s *Socket) uint32 { return s.opts.sndbuf })},
		{GetOption, SolSocket, SOType}:   {name: "SO_TYPE", on: transports, run: getting(func(s *Socket) uint32 { return uint32(categories[s.category].typ) })},

		{GetOption, SolSocket, SOOriginalDst}:      {name: "SO_ORIGINAL_DST", on: connects, run: (*Socket).originalDestination},
		{SetOption, SolSocket, SOWSKSecurity}:      {name: "SO_WSK_SECURITY", on: transports, run: (*Socket).setSecurity},
		{SetOption, SolSocket, SOWSKEventCallback}: {name: "SO_WSK_EVENT_CALLBACK", irp: irpOptional, on: transports, wait: (*Socket).setEventCallback},
	}
	for _, level := range []uint32{uint32(IPProtoIP), uint32(IPProtoIPv6)} { // SC-80
		boolean[[2]uint32{level, IPWFPRedirectRecords}] = socketOption{name: "IP_WFP_REDIRECT_RECORDS", on: DatagramSocket, field: func(o *options) *bool { return &o.wantRecords }}
		boolean[[2]uint32{level, IPWFPRedirectContext}] = socketOption{name: "IP_WFP_REDIRECT_CONTEXT", on: DatagramSocket, field: func(o *options) *bool { return &o.wantContext }}
	}
	for key, o := range boolean {
		m[option{SetOption, key[0], key[1]}] = &control{name: o.name, on: o.on, run: o.set()}
		m[option{GetOption, key[0], key[1]}] = &control{name: o.name, on: o.on, run: o.get()}
	}
	return m
}

func (o socketOption) set() runner {
	return setting(o.beforeBind, func(s *Socket, v uint32) error {
		*o.field(&s.opts) = (v != 0) != o.inverted
		if o.apply == nil {
			return nil
		}
		return o.apply(s)
	})
}

func (o socketOption) get() runner {
	return getting(func(s *Socket) uint32 {
		if *o.field(&s.opts) != o.inverted {
			return 1
		}
		return 0
	})
}

// setting makes a SetOption of a number. One that counts only before WskBind is
// refused after it.
func setting(beforeBind bool, set func(s *Socket, v uint32) error) runner {
	return func(s *Socket, _ uint32, in, _ []byte) (ntstatus.Status, int) {
		v, ok := ulong(in)
		switch {
		case !ok:
			return ntstatus.InvalidParameter, 0
		case beforeBind && s.state != unbound:
			return ntstatus.InvalidDeviceState, 0
		}
		return status(set(s, v)), 0
	}
}

func getting(get func(s *Socket) uint32) runner {
	return func(s *Socket, _ uint32, _, out []byte) (ntstatus.Status, int) { return putUlong(out, get(s)) }
}

// applyOptions brings what was set to the transport, once there is one. Options
// without a value of the client's keep the system's.
func (s *Socket) applyOptions() error {
	var t interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	}
	switch {
	case s.conn != nil:
		t = s.conn
		if err := s.tune(); err != nil {
			return err
		}
	case s.packets != nil:
		t = s.packets
	default:
		return nil
	}
	var err error
	if s.opts.rcvbuf > 0 {
		err = t.SetReadBuffer(int(s.opts.rcvbuf))
	}
	if s.opts.sndbuf > 0 {
		err = errors.Join(err, t.SetWriteBuffer(int(s.opts.sndbuf)))
	}
	return err
}

// tune switches what is not yet as it was set. Package net makes every connection
// without delay and keeps it alive.
func (s *Socket) tune() error {
	if s.opts.delay != s.tuned.delay {
		if err := s.conn.SetNoDelay(!s.opts.delay); err != nil {
			return err
		}
		s.tuned.delay = s.opts.delay
	}
	if s.opts.keepAlive == s.tuned.silent {
		if err := s.conn.SetKeepAlive(s.opts.keepAlive); err != nil {
			return err
		}
		s.tuned.silent = !s.opts.keepAlive
	}
	return nil
}

// originalDestination answers SO_ORIGINAL_DST with a SOCKADDR_STORAGE, whenever
// there are records to query, and to whom they are told (SC-46).
func (s *Socket) originalDestination(_ uint32, _, out []byte) (ntstatus.Status, int) {
	hop := s.hops().Last()
	switch {
	case hop == nil:
		return ntstatus.NotFound, 0
	case !s.entitled():
		return ntstatus.AccessDenied, 0
	}
	var storage [sockaddrStorage]byte
	AppendSockaddr(storage[:0], hop.Original)
	return answer(storage[:], out)
}
