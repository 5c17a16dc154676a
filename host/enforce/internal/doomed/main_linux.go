package doomed

import "golang.org/x/sys/unix"

func mainThread() bool { return unix.Gettid() == unix.Getpid() }
