//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A subject is a way to have a client's connections enforced or redirected.
type subject struct {
	name string
	base string // what it is compared to; empty: nothing
	data bool   // its connections carry bytes
	// setup returns the command that the client's is appended to, where the client
	// connects to, and how it is started.
	setup func(b *bench) (prefix []string, to target, attr *syscall.SysProcAttr, err error)
}

func (s *subject) plain() bool { return s.base == "" }

const plain, plainRouted = "plain", "plain, to a router"

var subjects = []subject{
	{plain, "", true, direct},
	{"notification, answered at once", plain, false, notify("answer")},
	{"notification, connected and answered", plain, true, notify("perform")},
	{"run, permit", plain, true, supervised("permit.yaml")},
	{"run, redirect", plain, true, supervised("redirect.yaml")},
	{"run --isolate, permit", plain, true, supervised("permit.yaml", "--isolate")},
	{"run --isolate, redirect", plain, true, supervised("redirect.yaml", "--isolate")},
	{"attach, permit", plain, true, attached("permit.yaml")},
	{"attach, redirect", plain, true, attached("redirect.yaml")},
	{plainRouted, "", true, routed("")},
	{"gateway, redirect", plainRouted, true, routed("--transparent=false")},
	{"gateway --transparent, redirect", plainRouted, true, routed("--transparent")},
	{"ptrace, redirect", plain, true, traced},
	{"proxychains4, SOCKS5", plain, true, preloaded},
	{"run, handed to SOCKS5", plain, true, handed},
	{"nginx stream", plain, true, nginx},
	{"plain Go relay", plain, true, relayed},
	{"run, redirect to nginx stream", plain, true, redirectedTo(nginx)},
	{"run, redirect to plain Go relay", plain, true, redirectedTo(relayed)},
	{"run, redirect to forward", plain, true, supervised("forward.yaml")},
}

// elsewhere is a destination that only a redirect reaches.
const elsewhere = "198.51.100.7"

func direct(b *bench) ([]string, target, *syscall.SysProcAttr, error) { return nil, b.here, nil, nil }

func notify(how string) func(*bench) ([]string, target, *syscall.SysProcAttr, error) {
	return func(b *bench) ([]string, target, *syscall.SysProcAttr, error) {
		return []string{b.exe("notify"), how}, b.here, nil, nil
	}
}

func traced(b *bench) ([]string, target, *syscall.SysProcAttr, error) {
	return []string{b.exe("trace"), b.here.addr}, b.here.at(elsewhere), nil, nil
}

func (t target) at(addr string) target {
	t.addr = addr
	return t
}

// goesTo is where a client is sent under a policy.
func (t target) under(policy string) target {
	if policy == "redirect.yaml" {
		return t.at(elsewhere)
	}
	return t
}

func supervised(policy string, flags ...string) func(*bench) ([]string, target, *syscall.SysProcAttr, error) {
	return func(b *bench) ([]string, target, *syscall.SysProcAttr, error) {
		file, err := b.policy(policy, b.here)
		return append(append([]string{b.exe("calloutd"), "run", "-p", file}, flags...), "--"), b.here.under(policy), nil, err
	}
}

// redirectedTo is a client that calloutd redirects to a relay which knows nothing of it:
// what is between client and server is as with forward.
func redirectedTo(relay func(*bench) ([]string, target, *syscall.SysProcAttr, error)) func(*bench) ([]string, target, *syscall.SysProcAttr, error) {
	return func(b *bench) ([]string, target, *syscall.SysProcAttr, error) {
		_, to, _, err := relay(b)
		if err != nil {
			return nil, to, nil, err
		}
		file, err := b.policy("redirect.yaml", to)
		return []string{b.exe("calloutd"), "run", "-p", file, "--"}, to.at(elsewhere), nil, err
	}
}

func attached(policy string) func(*bench) ([]string, target, *syscall.SysProcAttr, error) {
	return func(b *bench) (_ []string, to target, attr *syscall.SysProcAttr, err error) {
		if err := root(); err != nil {
			return nil, to, nil, err
		}
		cgroup, err := b.cgroup()
		if err != nil {
			return nil, to, nil, err
		}
		dir, err := os.Open(cgroup)
		if err != nil {
			return nil, to, nil, err
		}
		b.undo = append(b.undo, func() { dir.Close() })
		file, err := b.policy(policy, b.here)
		if err != nil {
			return nil, to, nil, err
		}
		err = b.daemon([]string{b.exe("calloutd"), "attach", "-p", file, "--cgroup", cgroup}, "attached to")
		return nil, b.here.under(policy), &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}, err
	}
}

// cgroup makes one, which is removed when all in it has ended.
func (b *bench) cgroup() (string, error) {
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			dir, err := os.MkdirTemp(root, "costbench-")
			b.undo = append(b.undo, func() { os.Remove(dir) })
			return dir, err
		}
	}
	return "", fmt.Errorf("%w: there is no cgroup of version 2", errAbsent)
}

// routed is a client in a network of its own whose way out is a router; with a
// flag for it the router is a gateway.
func routed(flag string) func(*bench) ([]string, target, *syscall.SysProcAttr, error) {
	return func(b *bench) (_ []string, to target, _ *syscall.SysProcAttr, err error) {
		if err := root(); err != nil {
			return nil, to, nil, err
		}
		for name, debian := range map[string]string{"ip": "iproute2", "nsenter": "util-linux"} {
			if err := tool(name, debian); err != nil {
				return nil, to, nil, err
			}
		}
		var in [2][]string // commands that enter the router's and the client's network
		for i := range in {
			_, p, err := b.start([]string{"sleep", "infinity"}, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}, false)
			if err != nil {
				return nil, to, nil, err
			}
			in[i] = []string{"nsenter", "-t", fmt.Sprint(p.Pid), "-n"}
		}
		router, client := in[0], in[1]
		err = b.sh(append(router, "sh", "-euc", `
ip link set lo up; ip link add in type veth peer name eth0 netns "$1"; ip addr add 198.18.0.1/24 dev in; ip link set in up
nsenter -t "$1" -n sh -euc 'ip link set lo up; ip addr add 198.18.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 198.18.0.1'`, "sh", client[2])...)
		if err != nil {
			return nil, to, nil, err
		}
		if to, err = b.server(router); err != nil || flag == "" {
			return client, to.at("198.18.0.1"), nil, err
		}
		file, err := b.policy("redirect.yaml", to)
		if err != nil {
			return nil, to, nil, err
		}
		err = b.daemon(append(router, b.exe("calloutd"), "gateway", "-p", file, "--interface", "in", flag), "gateway for")
		return client, to.at(elsewhere), nil, err
	}
}

// socks starts a SOCKS5 proxy.
func (b *bench) socks() error {
	if b.names["SOCKS"] != "" {
		return nil
	}
	if err := tool("microsocks", "microsocks"); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	b.names["SOCKS"] = fmt.Sprint(port)
	if _, _, err := b.start([]string{"microsocks", "-i", "127.0.0.1", "-p", b.names["SOCKS"]}, nil, false); err != nil {
		return err
	}
	return b.listening("127.0.0.1:" + b.names["SOCKS"])
}

func preloaded(b *bench) (_ []string, to target, _ *syscall.SysProcAttr, err error) {
	if err := tool("proxychains4", "proxychains4"); err != nil {
		return nil, to, nil, err
	}
	if err := b.socks(); err != nil {
		return nil, to, nil, err
	}
	file, err := b.file("proxychains.conf", "strict_chain\n[ProxyList]\nsocks5 127.0.0.1 %SOCKS%\n")
	return []string{"proxychains4", "-q", "-f", file}, b.here, nil, err
}

func handed(b *bench) (_ []string, to target, _ *syscall.SysProcAttr, err error) {
	if err := b.socks(); err != nil {
		return nil, to, nil, err
	}
	return supervised("socks.yaml")(b)
}

// nginx is a relay, without any redirect: the client connects to it.
func nginx(b *bench) (_ []string, to target, _ *syscall.SysProcAttr, err error) {
	if err := tool("nginx", "nginx-light, libnginx-mod-stream"); err != nil {
		return nil, to, nil, err
	}
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(module); err == nil {
		b.names["MODULE"] = "load_module " + module + ";"
	}
	to.addr = "127.0.0.1"
	var servers strings.Builder
	for _, p := range []struct {
		port *int
		to   int
	}{{&to.end, b.here.end}, {&to.drain, b.here.drain}, {&to.echo, b.here.echo}} {
		if *p.port, err = freePort(); err != nil {
			return nil, to, nil, err
		}
		fmt.Fprintf(&servers, "  server { listen 127.0.0.1:%d backlog=4096; proxy_pass 127.0.0.1:%d; }\n", *p.port, p.to)
	}
	b.names["SERVERS"], b.names["DIR"], b.names["WORKERS"] = servers.String(), b.dir, fmt.Sprint(runtime.NumCPU())
	b.names["PID"] = fmt.Sprintf("%d-nginx.pid", to.end)
	file, err := b.file(fmt.Sprintf("%d-nginx.conf", to.end), `%MODULE%
daemon off; worker_processes %WORKERS%; pid %DIR%/%PID%; error_log %DIR%/nginx.log;
events { worker_connections 4096; }
stream {
%SERVERS%}
`)
	if err != nil {
		return nil, to, nil, err
	}
	check := b.sh("nginx", "-t", "-e", b.exe("nginx.log"), "-c", file)
	if check != nil {
		return nil, to, nil, fmt.Errorf("%w: %w", errAbsent, check)
	}
	_, p, err := b.start([]string{"nginx", "-e", b.exe("nginx.log"), "-c", file}, nil, false)
	if err == nil {
		err = b.listening(fmt.Sprintf("127.0.0.1:%d", to.end))
	}
	if err != nil {
		return nil, to, nil, err
	}
	b.between, err = b.workers(p.Pid, runtime.NumCPU())
	return nil, to, nil, err
}

// workers are the processes that a process of one thread starts, once all are there.
func (b *bench) workers(pid, n int) (pids []int, err error) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		all, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return nil, err
		}
		if f := strings.Fields(string(all)); len(f) == n {
			for _, f := range f {
				child, err := strconv.Atoi(f)
				if err != nil {
					return nil, err
				}
				pids = append(pids, child)
			}
			return pids, nil
		}
		if time.Since(began) > 30*time.Second || b.ctx.Err() != nil {
			return nil, fmt.Errorf("process %d has started %q, and not %d workers", pid, all, n)
		}
	}
}

// relayed is a relay that package net makes; the client connects to it.
func relayed(b *bench) (_ []string, to target, _ *syscall.SysProcAttr, err error) {
	argv := []string{b.exe("relay")}
	for _, port := range []int{b.here.end, b.here.drain, b.here.echo} {
		argv = append(argv, fmt.Sprintf("%s:%d", b.here.addr, port))
	}
	out, p, err := b.start(argv, nil, false)
	if err != nil {
		return nil, to, nil, err
	}
	to.addr, b.between = "127.0.0.1", []int{p.Pid}
	_, err = fmt.Fscanln(out, &to.end, &to.drain, &to.echo)
	return nil, to, nil, err
}
