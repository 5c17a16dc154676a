// Package bpf holds the programs and maps that the kernel runs for package
// cgroupbpf, compiled from redirect.c.
package bpf

//go:generate go tool bpf2go -go-package bpf -tags linux -target amd64,arm64 -type record -type config -type home -type cell_key -type cell -type source -type user_key Redirect redirect.c -- -O2 -Wall -Werror -I/usr/include/x86_64-linux-gnu
