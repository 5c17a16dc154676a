//go:build !linux

package doomed

func mainThread() bool { return false }
