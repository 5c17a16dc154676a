// Command client is a static program that connects many times at once. Each
// connection sends a word of its own and wants it back.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

func main() {
	addr := os.Args[1]
	n, _ := strconv.Atoi(os.Args[2])
	var wg sync.WaitGroup
	ready, lost := make(chan struct{}), make(chan error, n)
	for i := range n {
		wg.Go(func() {
			<-ready
			lost <- echo(addr, fmt.Sprintf("connection %d", i))
		})
	}
	close(ready)
	wg.Wait()
	close(lost)
	for err := range lost {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			n--
		}
	}
	fmt.Println("echoed", n)
}

func echo(addr, word string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	back, err := io.ReadAll(c)
	if err == nil && string(back) != word {
		err = fmt.Errorf("%s came back as %q", word, back)
	}
	return err
}
