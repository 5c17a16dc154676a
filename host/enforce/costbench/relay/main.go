// Command relay is a relay as a Go program makes one that knows package net only: one
// for each address it is given, of which it prints the ports.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

func main() {
	var wg sync.WaitGroup
	for _, arg := range os.Args[1:] {
		to, err := net.ResolveTCPAddr("tcp", arg)
		if err != nil {
			fatal(err)
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			fatal(err)
		}
		fmt.Print(l.Addr().(*net.TCPAddr).Port, " ")
		wg.Go(func() { serve(l, to) })
	}
	fmt.Println()
	wg.Wait()
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "relay:", err)
	os.Exit(1)
}

func serve(l *net.TCPListener, to *net.TCPAddr) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			fatal(err)
		}
		go relay(c, to)
	}
}

func relay(in *net.TCPConn, to *net.TCPAddr) {
	defer in.Close()
	out, err := net.DialTCP("tcp", nil, to)
	if err != nil {
		_ = in.SetLinger(0) // The close that follows is all that can be done about it.
		return
	}
	defer out.Close()
	var wg sync.WaitGroup
	wg.Go(func() { half(in, out) })
	half(out, in)
	wg.Wait()
}

func half(dst, src *net.TCPConn) {
	_, _ = io.Copy(dst, src)
	_ = dst.CloseWrite() // The other half sees what is wrong.
}
