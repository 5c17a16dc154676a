package main

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// More connections than the descriptors are enough for are refused where they are asked for.
func TestMaxConnectionsIsWhatTheDescriptorsAreEnoughFor(t *testing.T) {
	needGateway(t)
	cgroup, _ := newCgroup(t)
	p := policy(t, "version: 1\n")
	for _, args := range [][]string{{"gateway", "--interface", "lo"}, {"attach", "--cgroup", cgroup}, {"serve", "--cgroup", cgroup, "--remote", "", "--control", t.TempDir() + "/c"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // It may begin.
		defer cancel()
		cmd := exec.CommandContext(ctx, "calloutd", append(args, "--policy", p, "--max-connections", "1000000000000")...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		r := finish(t, cmd)
		require.Equal(t, codeTool, r.code, args)
		require.Contains(t, r.stderr, "1000000000000 connections at once: expected 1 to ", args)
	}
}
