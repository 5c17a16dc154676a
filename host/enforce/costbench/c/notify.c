// The floor: a command whose connects are answered by a supervisor that decides
// nothing. `notify answer` says at once that it succeeded, without a connection;
// `notify perform` fetches address and socket, connects it and answers.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static int trap(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_connect, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof code / sizeof *code, code};
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
	check(fd >= 0, "seccomp");
	return fd;
}

// process is of the thread that the last call came from; -1: of none.
static pid_t last;
static int process = -1;

static int perform(const struct seccomp_notif *n)
{
	struct sockaddr_storage to;
	struct iovec here = {&to, n->data.args[2]}, there = {(void *)n->data.args[1], n->data.args[2]};
	if (n->data.args[2] > sizeof to || process_vm_readv(n->pid, &here, 1, &there, 1, 0) < 0)
		return EFAULT;
	if ((pid_t)n->pid != last) {
		close(process);
		last = n->pid;
		process = syscall(SYS_pidfd_open, last, 0);
	}
	int fd = syscall(SYS_pidfd_getfd, process, (int)n->data.args[0], 0);
	if (fd < 0)
		return errno;
	int e = connect(fd, (struct sockaddr *)&to, n->data.args[2]) == 0 ? 0 : errno;
	close(fd);
	return e;
}

static void ended(int signal) { (void)signal; }

int main(int argc, char **argv)
{
	int said[2], go[2], number, status;
	check(argc > 2 && pipe(said) == 0 && pipe(go) == 0, "notify answer|perform COMMAND");
	struct sigaction interrupt = {.sa_handler = ended}; // RECV ends with the command.
	sigaction(SIGCHLD, &interrupt, NULL);
	pid_t child = fork();
	if (child == 0) {
		char b;
		number = trap();
		check(write(said[1], &number, sizeof number) == sizeof number && read(go[0], &b, 1) == 1, "start");
		close(number);
		execvp(argv[2], argv + 2);
		check(0, argv[2]);
	}
	check(read(said[0], &number, sizeof number) == sizeof number, "the listener's number");
	int listener = syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, child, 0), number, 0);
	check(listener >= 0, "pidfd_getfd");
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1UL); // SYNC_WAKE_UP, where there is one
	check(write(go[1], "", 1) == 1, "go");
	for (;;) {
		struct seccomp_notif n;
		memset(&n, 0, sizeof n);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n) != 0) {
			if (waitpid(child, &status, WNOHANG) == child)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			continue;
		}
		struct seccomp_notif_resp r = {.id = n.id};
		if (argv[1][0] == 'p')
			r.error = -perform(&n);
		while (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r) != 0 && errno == EINTR)
			;
	}
}
