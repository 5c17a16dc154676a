package importer

import (
	"bufio"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/calloutd/calloutd/host/flight"
)

// A netEvent is FWPM_NET_EVENT as netsh writes it.
type netEvent struct {
	Header netEventHeader `xml:"header"`
	Drop   *classified    `xml:"classifyDrop"`
	Allow  *classified    `xml:"classifyAllow"`
}

type netEventHeader struct {
	Time         string `xml:"timeStamp"`
	Protocol     string `xml:"ipProtocol"`
	LocalAddrV4  string `xml:"localAddrV4"`
	RemoteAddrV4 string `xml:"remoteAddrV4"`
	LocalAddrV6  string `xml:"localAddrV6"`
	RemoteAddrV6 string `xml:"remoteAddrV6"`
	LocalPort    string `xml:"localPort"`
	RemotePort   string `xml:"remotePort"`
	AppID        string `xml:"appId>data"`
}

// classified is FWPM_NET_EVENT_CLASSIFY_DROP or _ALLOW.
type classified struct {
	Filter    uint64 `xml:"filterId"`
	Direction string `xml:"msFwpDirection"`
}

// readNetEvents reads the items of netEvents, one at a time.
func readNetEvents(in io.Reader, found func(*flight.Entry) error) error {
	left := &budget{Reader: bufio.NewReader(transform.NewReader(in, unicode.BOMOverride(unicode.UTF8.NewDecoder())))}
	d := xml.NewDecoder(left)
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // It is UTF-8 by now.
	inside := false
	for {
		left.n = maxLine
		line, _ := d.InputPos()
		t, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && !inside:
			return &Error{Line: line, Msg: "there is no <netEvents>: expected what netsh wfp show netevents writes"}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &Error{Line: lineOf(d), Msg: err.Error()}
		}
		start, begins := t.(xml.StartElement)
		switch {
		case !begins:
		case start.Name.Local == "netEvents":
			inside = true
		case inside && start.Name.Local == "item":
			line := lineOf(d)
			var ev netEvent
			if err := d.DecodeElement(&ev, &start); err != nil {
				return &Error{Line: lineOf(d), Msg: err.Error()}
			}
			if err := ev.connection(found); err != nil {
				var e *Error
				if errors.As(err, &e) {
					e.Line = line
				}
				return err
			}
		}
	}
}

func lineOf(d *xml.Decoder) int {
	line, _ := d.InputPos()
	return line
}

// A budget bounds what the decoder reads, and so holds, at a time. It is an io.ByteReader,
// so that the decoder reads nothing ahead.
type budget struct {
	*bufio.Reader
	n int
}

func (b *budget) ReadByte() (byte, error) {
	if b.n--; b.n < 0 {
		return 0, fmt.Errorf("one element or text is longer than %d bytes", maxLine)
	}
	return b.Reader.ReadByte()
}

// connection is the event's, if it is about one that was classified.
func (ev *netEvent) connection(found func(*flight.Entry) error) error {
	h := &ev.Header
	c, action := ev.Drop, "block"
	if ev.Allow != nil {
		c, action = ev.Allow, "permit"
	}
	protocol, known := map[string]uint8{"6": 6, "17": 17}[h.Protocol]
	if c == nil || !known {
		return nil
	}
	src, dst := h.LocalAddrV4+h.LocalAddrV6, h.RemoteAddrV4+h.RemoteAddrV6
	return flow(protocol, src, h.LocalPort, dst, h.RemotePort, func(e *flight.Entry) (err error) {
		if e.Program, err = h.program(); err != nil {
			return err
		}
		if h.Time != "" {
			if e.Time, err = time.Parse(time.RFC3339Nano, h.Time); err != nil {
				return bad("timeStamp %q is no time", h.Time)
			}
		}
		e.Inbound = strings.HasSuffix(c.Direction, "_IN") || strings.HasSuffix(c.Direction, "_INBOUND")
		e.Outcome = &flight.Outcome{Action: action, Filter: c.Filter}
		return found(e)
	})
}

// program reads FWP_BYTE_BLOB of ALE_APP_ID, which is UTF-16 with a zero at its end.
func (h *netEventHeader) program() (string, error) {
	b, err := hex.DecodeString(h.AppID)
	if err != nil || len(b)%2 != 0 {
		return "", bad("appId: %q is no text in hexadecimal digits", h.AppID)
	}
	var text []uint16
	for ; len(b) >= 2; b = b[2:] {
		text = append(text, uint16(b[0])|uint16(b[1])<<8)
	}
	return strings.TrimRight(string(utf16.Decode(text)), "\x00"), nil
}
