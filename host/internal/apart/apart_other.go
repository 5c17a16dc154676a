//go:build !linux

package apart

import (
	"os"
	"runtime/debug"
	"syscall"
)

const root = ""

func executable() (string, error) { return os.Executable() }

func attributes() *syscall.SysProcAttr { return nil }

// confine has no limit that this system would keep to; that of the time is not here.
func confine(l Limits) error {
	debug.SetMemoryLimit(int64(l.Memory - l.Memory/8))
	return nil
}

func killed(error) bool { return false }

func killedForMemory() uint64 { return 0 }

func resident(*os.ProcessState) uint64 { return 0 }
