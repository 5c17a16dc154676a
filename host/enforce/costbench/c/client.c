// A client that does what it is told, a line each, and answers with a line:
//
//	connect ADDRESS PORT CLIENTS EACH   median and 99th percentile of connect() in ns, connections a second
//	bytes ADDRESS PORT MEBIBYTES        bytes a second to a server that reads them
//	pingpong ADDRESS PORT TIMES         median in ns of 64 bytes there and back
//
// A connection ends when the server has ended it, so that no queue grows.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static int less(const void *a, const void *b)
{
	int64_t d = *(const int64_t *)a - *(const int64_t *)b;
	return (d > 0) - (d < 0);
}

static int open_connection(const struct sockaddr_in *to, int64_t *took)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	check(fd >= 0, "socket");
	int64_t t = now();
	check(connect(fd, (const struct sockaddr *)to, sizeof *to) == 0, "connect");
	if (took)
		*took = now() - t;
	return fd;
}

static void connections(const struct sockaddr_in *to, int64_t *took, long n)
{
	char b;
	for (long i = 0; i < n; i++) {
		int fd = open_connection(to, &took[i]);
		while (read(fd, &b, 1) > 0)
			;
		close(fd); // The server closed first: TIME_WAIT is its, and ports do not run out.
	}
}

static void measure_connect(const struct sockaddr_in *to, long clients, long each)
{
	size_t size = clients * each * sizeof(int64_t);
	int64_t *took = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(took != MAP_FAILED, "mmap");
	int gate[2], status;
	check(pipe(gate) == 0, "pipe");
	for (long i = 0; clients > 1 && i < clients; i++) {
		pid_t child = fork();
		check(child >= 0, "fork");
		if (child == 0) {
			char b;
			close(gate[1]);
			check(read(gate[0], &b, 1) == 0, "gate"); // All begin at once.
			connections(to, took + i * each, each);
			_exit(0);
		}
	}
	int64_t t = now();
	close(gate[0]);
	close(gate[1]);
	if (clients == 1)
		connections(to, took, each);
	for (long i = 0; clients > 1 && i < clients; i++)
		check(wait(&status) > 0 && status == 0, "a client failed");
	t = now() - t;
	long n = clients * each;
	qsort(took, n, sizeof *took, less);
	printf("%ld %ld %.0f\n", (long)took[n / 2], (long)took[n * 99 / 100], n * 1e9 / t);
	munmap(took, size);
}

static void measure_bytes(const struct sockaddr_in *to, long mebibytes)
{
	static char b[1 << 17];
	int fd = open_connection(to, 0);
	int64_t t = now(), left = mebibytes << 20;
	for (ssize_t n; left > 0; left -= n) {
		n = write(fd, b, sizeof b);
		check(n > 0, "write");
	}
	check(shutdown(fd, SHUT_WR) == 0, "shutdown");
	check(read(fd, b, 1) == 0, "the server's end"); // It has read it all.
	printf("%.0f\n", (mebibytes << 20) * 1e9 / (now() - t));
	close(fd);
}

static void measure_pingpong(const struct sockaddr_in *to, long times)
{
	char b[64] = "ping";
	int one = 1, fd = open_connection(to, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	int64_t *took = calloc(times, sizeof *took);
	check(took != NULL, "calloc");
	for (long i = 0; i < times; i++) {
		int64_t t = now();
		check(write(fd, b, sizeof b) == sizeof b, "ping");
		check(recv(fd, b, sizeof b, MSG_WAITALL) == sizeof b, "pong");
		took[i] = now() - t;
	}
	qsort(took, times, sizeof *took, less);
	printf("%ld\n", (long)took[times / 2]);
	free(took);
	close(fd);
}

int main(void)
{
	char line[256], what[16], address[64];
	long port, first, second;
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		int n = sscanf(line, "%15s %63s %ld %ld %ld", what, address, &port, &first, &second);
		struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
		check(n >= 4 && inet_pton(AF_INET, address, &to.sin_addr) == 1, line);
		if (strcmp(what, "connect") == 0)
			measure_connect(&to, first, second);
		else if (strcmp(what, "bytes") == 0)
			measure_bytes(&to, first);
		else
			measure_pingpong(&to, first);
	}
	return 0;
}
