package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/calloutd/calloutd/host/redirect"
	"github.com/calloutd/calloutd/host/redirect/boltstore"
)

func init() { children["small disk"] = smallDisk }

// A disk that others fill refuses hops until there is room, and one that nobody may write
// to says so. It is a file system of its own, so it is mounted in a process of its own.
func TestASmallDiskRefuses(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"=small disk", planVar+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if len(out) == 0 && err != nil && os.Getenv("CI") == "" {
		t.Skip("this system has no namespaces of users: ", err)
	}
	require.NoError(t, err, "%s", out)
}

func smallDisk() {
	dir := os.Getenv(planVar)
	must(syscall.Mount("records", dir, "tmpfs", 0, "size=4m"))
	o := boltstore.Options{Path: filepath.Join(dir, "records.db"), Durability: boltstore.Sync}
	s, err := boltstore.Open(o)
	must(err)
	others := filepath.Join(dir, "others")
	fill(others)
	n := putUntil(s, "no space left on device")
	must(os.Remove(others))
	must(s.Flush(context.Background()))
	must(s.Put(hop(uint64(n), 0)))
	must(s.Close())

	must(syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if _, err := boltstore.Open(o); err == nil || !strings.HasSuffix(err.Error(), "read-only file system") {
		panic(fmt.Sprint("opened with ", err))
	}
	must(syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	recovered := 0
	o.OnRecover = func(h *redirect.Hop) bool { recovered++; return true }
	s, err = boltstore.Open(o)
	must(err)
	must(s.Close())
	if recovered != n+1 {
		panic(fmt.Sprintf("%d hops were taken and %d found", n+1, recovered))
	}
}

// fill writes a file until there is no room.
func fill(path string) {
	f, err := os.Create(path)
	must(err)
	for err == nil {
		_, err = io.WriteString(f, strings.Repeat("x", 1<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		panic(err)
	}
	must(f.Close())
}
