//go:build !windows

package winsock

import (
	"net"
	"net/netip"
	"syscall"
)

func systemRecords(net.Conn) ([]byte, error)          { return nil, errForeign }
func systemContext(net.Conn) ([]byte, error)          { return nil, errForeign }
func systemOriginal(net.Conn) (netip.AddrPort, error) { return netip.AddrPort{}, errForeign }
func setSystem(syscall.RawConn, []byte) error         { return errForeign }
