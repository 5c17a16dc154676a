// A redirector that works like graftcp: it traces a command and changes the
// address of each connect() in its memory. `trace ADDRESS COMMAND` sends them to
// the same port of ADDRESS. It traces less than graftcp: no socket() and close().
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void run(char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_connect, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof code / sizeof *code, code};
	check(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0, "ptrace");
	raise(SIGSTOP);
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0, "seccomp");
	execvp(argv[0], argv);
	check(0, argv[0]);
}

// redirect lets one call of pid run with another address, and puts the
// program's own back: a call that is traced has not begun.
static void redirect(pid_t pid, struct in_addr address)
{
	struct __ptrace_syscall_info call;
	struct sockaddr_in to, was;
	int status;
	check(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof call, &call) > 0, "PTRACE_GET_SYSCALL_INFO");
	struct iovec here = {&to, sizeof to}, there = {(void *)call.seccomp.args[1], sizeof to};
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof to || to.sin_family != AF_INET) {
		ptrace(PTRACE_CONT, pid, 0, 0);
		return;
	}
	was = to;
	to.sin_addr = address;
	check(process_vm_writev(pid, &here, 1, &there, 1, 0) == sizeof to, "process_vm_writev");
	ptrace(PTRACE_SYSCALL, pid, 0, 0);
	if (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
		here.iov_base = &was;
		process_vm_writev(pid, &here, 1, &there, 1, 0);
		ptrace(PTRACE_CONT, pid, 0, 0);
	}
}

int main(int argc, char **argv)
{
	struct in_addr address;
	int status;
	check(argc > 2 && inet_pton(AF_INET, argv[1], &address) == 1, "trace ADDRESS COMMAND");
	pid_t child = fork(), pid;
	if (child == 0)
		run(argv + 2);
	check(waitpid(child, &status, 0) == child, "waitpid");
	check(ptrace(PTRACE_SETOPTIONS, child, 0,
		  PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL) == 0, "PTRACE_SETOPTIONS");
	ptrace(PTRACE_CONT, child, 0, 0);
	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		if (!WIFSTOPPED(status)) {
			if (pid == child)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			continue;
		}
		int signal = WSTOPSIG(status);
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
			redirect(pid, address);
		else // A new process stops first, and an event is no signal of the program's.
			ptrace(PTRACE_CONT, pid, 0, signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
	}
	return 1;
}
