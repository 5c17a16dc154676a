// Package bypass has the ways round an enforcement that the tests of more than one
// backend try.
package bypass

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BuildInt80 compiles, in a folder, a program of x86-64 that makes i386's calls. It is
// given a port of 127.0.0.1, and says what three ways to connect there return.
func BuildInt80(dir, gcc string) (program string, err error) {
	source, program := filepath.Join(dir, "int80.c"), filepath.Join(dir, "int80")
	if err := os.WriteFile(source, []byte(int80), 0o600); err != nil {
		return "", err
	}
	if said, err := exec.Command(gcc, "-o", program, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return program, nil
}

const int80 = `
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
static void none(int sig) { // Where they are switched off, as by ia32_emulation=0, that interrupt is a fault.
	static const char said[] = "connect -38\nsocketcall -38\nsocketcall sendto -38\n";
	_exit(write(1, said, sizeof said - 1) < 0);
}
static long call(long nr, long a, long b, long c) {
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return r;
}
int main(int argc, char **argv) {
	char *low = mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT, -1, 0);
	struct sockaddr_in *sa = (void *)low;
	unsigned *args = (unsigned *)(low + 64);
	sa->sin_family = AF_INET; sa->sin_port = htons(atoi(argv[1])); sa->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	signal(SIGSEGV, none);
	long connected = call(362, socket(AF_INET, SOCK_STREAM, 0), (long)sa, sizeof *sa);
	signal(SIGSEGV, SIG_DFL);
	printf("connect %ld\n", connected);
	args[0] = socket(AF_INET, SOCK_STREAM, 0); args[1] = (unsigned)(long)sa; args[2] = sizeof *sa;
	printf("socketcall %ld\n", call(102, 3, (long)args, 0));
	args[0] = socket(AF_INET, SOCK_STREAM, 0); args[2] = 1; args[3] = MSG_FASTOPEN; args[4] = (unsigned)(long)sa; args[5] = sizeof *sa;
	printf("socketcall sendto %ld\n", call(102, 11, (long)args, 0));
}`
