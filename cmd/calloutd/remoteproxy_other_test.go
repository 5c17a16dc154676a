//go:build !linux

package main

// remoteProxy needs sockets that can be passed.
func remoteProxy() { panic("only on Linux") }
