package winsock

import (
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/calloutd/calloutd/wsk"
)

// firstBuffer is what the pages suggest to ask with (RED-Q-09).
const firstBuffer = 1024

// withHandle runs f on the SOCKET of a connection.
func withHandle(conn any, f func(syscall.Handle) error) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return errForeign
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, f)
}

func control(raw syscall.RawConn, f func(syscall.Handle) error) (err error) {
	cerr := raw.Control(func(fd uintptr) { err = f(syscall.Handle(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}

func ioctl(h syscall.Handle, code uint32, in, out []byte) (n uint32, err error) {
	err = syscall.WSAIoctl(h, code, unsafe.SliceData(in), uint32(len(in)), unsafe.SliceData(out), uint32(len(out)), &n, nil, 0)
	return n, fromSystem(err)
}

// fromSystem is the Error of a number that Windows answered.
func fromSystem(err error) error {
	if no, ok := err.(syscall.Errno); ok {
		return Error(no).Err()
	}
	return err
}

func query(conn net.Conn, code uint32) (data []byte, err error) {
	err = withHandle(conn, func(h syscall.Handle) error {
		buf := make([]byte, firstBuffer)
		n, err := ioctl(h, code, nil, buf)
		if err == ErrorInsufficientBuffer && int(n) > len(buf) {
			buf = make([]byte, n)
			n, err = ioctl(h, code, nil, buf)
		}
		data = buf[:min(int(n), len(buf))]
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

func systemRecords(c net.Conn) ([]byte, error) {
	return query(c, wsk.SIOQueryWFPConnectionRedirectRecords)
}

func systemContext(c net.Conn) ([]byte, error) {
	return query(c, wsk.SIOQueryWFPConnectionRedirectContext)
}

var getsockopt = syscall.NewLazyDLL("ws2_32.dll").NewProc("getsockopt")

func systemOriginal(c net.Conn) (a netip.AddrPort, err error) {
	err = withHandle(c, func(h syscall.Handle) error {
		var storage [128]byte // SOCKADDR_STORAGE
		size := int32(len(storage))
		r, _, errno := getsockopt.Call(uintptr(h), uintptr(wsk.SolSocket), uintptr(wsk.SOOriginalDst),
			uintptr(unsafe.Pointer(&storage)), uintptr(unsafe.Pointer(&size)))
		if r != 0 {
			return fromSystem(errno)
		}
		var ok bool
		if a, ok = wsk.ParseSockaddr(storage[:]); !ok {
			return FWPENotFound
		}
		return nil
	})
	return a, err
}

func setSystem(c syscall.RawConn, records []byte) error {
	return control(c, func(h syscall.Handle) error {
		_, err := ioctl(h, wsk.SIOSetWFPConnectionRedirectRecords, records, nil)
		return err
	})
}
