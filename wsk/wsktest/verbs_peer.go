package wsktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// peers are the words about sockets of package net, the other ends.
var peers = map[string]verb{
	"listener": {args: 1, keys: "at", do: func(w *world, s *statement) error {
		at := s.keys["at"]
		if at == "" {
			at = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", at)
		if err == nil {
			w.listeners[s.args[0]] = l.(*net.TCPListener)
		}
		return err
	}},
	"dial": {args: 2, do: func(w *world, s *statement) error {
		a, err := w.addr(s.args[1])
		if err != nil {
			return err
		}
		c, err := net.DialTimeout("tcp", a.String(), patience)
		if err == nil {
			w.conns[s.args[0]] = c.(*net.TCPConn)
		}
		return err
	}},
	// dial-reset: the connection is reset, during the dial or after.
	"dial-reset": {args: 1, do: func(w *world, s *statement) error {
		a, err := w.addr(s.args[0])
		if err != nil {
			return err
		}
		c, err := net.DialTimeout("tcp", a.String(), patience)
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
		}
		if !isReset(err) {
			return fmt.Errorf("%v, want a reset", err)
		}
		return nil
	}},
	"take": {args: 2, do: func(w *world, s *statement) error { // take LISTENER NAME
		l := w.listeners[s.args[0]]
		if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		c, err := l.AcceptTCP()
		if err == nil {
			w.conns[s.args[1]] = c
		}
		return err
	}},
	// relay: accepts one connection and carries it to another address.
	"relay": {args: 2, do: relayWord},
	"peer":  {args: 2, vari: true, do: peerWord},
	"packet-peer": {args: 1, do: func(w *world, s *statement) error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err == nil {
			w.packets[s.args[0]] = c
		}
		return err
	}},
	"packet": {args: 3, vari: true, do: packetWord},
}

// isReset knows a reset by what the systems call it; their numbers have no name
// in common.
func isReset(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "forcibly closed"))
}

func relayWord(w *world, s *statement) error {
	to, err := w.addr(s.args[1])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.listeners[s.args[0]] = l.(*net.TCPListener)
	done := make(chan struct{})
	go func() {
		defer close(done)
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", to.String())
		if err != nil {
			return
		}
		defer out.Close()
		_, _ = io.Copy(out, in) // Until the application closes.
	}()
	w.cleanup = append(w.cleanup, func() { l.Close(); <-done })
	return nil
}

// peerWord is: peer NAME send DATA | receive DATA | and the words of peerDoes.
func peerWord(w *world, s *statement) error {
	c := w.conns[s.args[0]]
	if c == nil {
		return fmt.Errorf("there is no peer %q", s.args[0])
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if len(s.args) == 3 {
		data, err := w.blob(s.args[2])
		if err != nil {
			return err
		}
		return peerTransfers(c, s.args[1], data)
	}
	do, ok := peerDoes[s.args[1]]
	if !ok {
		return fmt.Errorf("%q is nothing a peer does", s.args[1])
	}
	if s.args[1] == "close" || s.args[1] == "abort" {
		delete(w.conns, s.args[0])
	}
	return do(c)
}

func peerTransfers(c *net.TCPConn, what string, data []byte) error {
	if what == "send" {
		_, err := c.Write(data)
		return err
	}
	buf := make([]byte, len(data))
	_, err := io.ReadFull(c, buf)
	switch {
	case what != "receive":
		return errors.New("send DATA or receive DATA")
	case err != nil:
		return err
	case !bytes.Equal(buf, data):
		return fmt.Errorf("received %q", buf)
	}
	return nil
}

var peerDoes = map[string]func(*net.TCPConn) error{
	"close": (*net.TCPConn).Close,
	"shut":  (*net.TCPConn).CloseWrite,
	"abort": func(c *net.TCPConn) error {
		c.SetLinger(0)
		return c.Close()
	},
	"eof": func(c *net.TCPConn) error {
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return fmt.Errorf("%d bytes and %v, want the end", n, err)
		}
		return nil
	},
	"reset": func(c *net.TCPConn) error {
		if _, err := io.Copy(io.Discard, c); !isReset(err) {
			return fmt.Errorf("%v, want a reset", err)
		}
		return nil
	},
	"gone": func(c *net.TCPConn) error { // reset now, or when something is sent
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return nil
			}
		}
	},
	"silent": func(c *net.TCPConn) error {
		c.SetReadDeadline(time.Unix(1, 0))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%v, want nothing", err)
		}
		return nil
	},
}

// packetWord is: packet NAME send ADDRESS DATA | receive DATA
func packetWord(w *world, s *statement) error {
	c := w.packets[s.args[0]]
	if c == nil {
		return fmt.Errorf("there is no peer %q", s.args[0])
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if s.args[1] == "send" && len(s.args) == 4 {
		to, err := w.addr(s.args[2])
		if err != nil {
			return err
		}
		data, err := w.blob(s.args[3])
		if err == nil {
			_, err = c.WriteToUDPAddrPort(data, to)
		}
		return err
	}
	if s.args[1] != "receive" {
		return errors.New("send ADDRESS DATA or receive DATA")
	}
	want, err := w.blob(s.args[2])
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || !bytes.Equal(buf[:n], want) {
		return fmt.Errorf("received %q, %v", buf[:n], err)
	}
	return nil
}
