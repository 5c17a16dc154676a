package importer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/calloutd/calloutd/host/flight"
	"github.com/calloutd/calloutd/host/fwps"
)

// A capture is a file of either kind.
type capture interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// readPcap finds the SYNs of a capture.
func readPcap(in io.Reader, found func(*flight.Entry) error) (err error) {
	n := 1
	defer func() { // The decoders are given what others sent.
		if p := recover(); p != nil {
			err = &Error{Unit: n, Msg: fmt.Sprintf("it cannot be read: %v", p)}
		}
	}()
	c, err := open(in)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Unit: n, Msg: "the file is empty or cut off"}
	case err != nil:
		return &Error{Unit: n, Msg: fmt.Sprintf("this is no capture in pcap or pcapng: %v", err)}
	}
	for ; ; n++ {
		data, info, err := c.ReadPacketData()
		switch {
		case errors.Is(err, io.EOF) && info.CaptureLength == 0:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return ErrCutOff
		case err != nil:
			return &Error{Unit: n, Msg: err.Error()}
		}
		if e := syn(data, c.LinkType()); e != nil {
			e.Time = info.Timestamp
			if err := found(e); err != nil {
				return err
			}
		}
	}
}

// blockSection begins a pcapng file.
const blockSection = "\x0a\x0d\x0d\x0a"

func open(in io.Reader) (capture, error) {
	b := bufio.NewReader(in)
	head, err := b.Peek(4)
	if err != nil {
		return nil, err
	}
	if string(head) == blockSection {
		return pcapgo.NewNgReader(b, pcapgo.DefaultNgReaderOptions)
	}
	r, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// syn is the connection that a packet begins, nil if it begins none.
func syn(data []byte, link layers.LinkType) *flight.Entry {
	p := gopacket.NewPacket(data, link, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if tcp == nil || !tcp.SYN || tcp.ACK {
		return nil
	}
	var src, dst netip.Addr
	var fine, fine2 bool
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		src, fine = netip.AddrFromSlice(ip.SrcIP.To4())
		dst, fine2 = netip.AddrFromSlice(ip.DstIP.To4())
	case *layers.IPv6:
		src, fine = netip.AddrFromSlice(ip.SrcIP)
		dst, fine2 = netip.AddrFromSlice(ip.DstIP)
	}
	if !fine || !fine2 {
		return nil
	}
	return &flight.Entry{Protocol: fwps.ProtocolTCP, Local: netip.AddrPortFrom(src, uint16(tcp.SrcPort)), Remote: netip.AddrPortFrom(dst, uint16(tcp.DstPort))}
}
