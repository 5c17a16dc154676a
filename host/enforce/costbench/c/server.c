// A server with three ports, which it prints: one ends each connection at once,
// one reads until the end, one sends back what it reads. Its parent's end is its own.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void *end(void *fd)
{
	close((intptr_t)fd); // No reset: it could come before connect() has returned.
	return NULL;
}

static void *drain(void *fd)
{
	char b[1 << 17];
	while (read((intptr_t)fd, b, sizeof b) > 0)
		;
	close((intptr_t)fd);
	return NULL;
}

static void *echo(void *fd)
{
	char b[1 << 12];
	int one = 1;
	setsockopt((intptr_t)fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	for (ssize_t n; (n = read((intptr_t)fd, b, sizeof b)) > 0 && write((intptr_t)fd, b, n) == n;)
		;
	close((intptr_t)fd);
	return NULL;
}

static struct port {
	void *(*serve)(void *);
	int threads, fd;
} ports[] = {{end, 0, 0}, {drain, 1, 0}, {echo, 1, 0}};

static void *serve(void *p)
{
	struct port *port = p;
	for (pthread_t thread;;) {
		intptr_t fd = accept(port->fd, NULL, NULL);
		if (fd < 0)
			continue;
		if (!port->threads)
			port->serve((void *)fd);
		else if (pthread_create(&thread, NULL, port->serve, (void *)fd) == 0)
			pthread_detach(thread);
	}
	return NULL;
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 3; i++) {
		struct sockaddr_in at = {.sin_family = AF_INET};
		socklen_t n = sizeof at;
		pthread_t thread;
		ports[i].fd = socket(AF_INET, SOCK_STREAM, 0);
		check(bind(ports[i].fd, (struct sockaddr *)&at, n) == 0 && listen(ports[i].fd, 4096) == 0, "listen");
		getsockname(ports[i].fd, (struct sockaddr *)&at, &n);
		check(pthread_create(&thread, NULL, serve, &ports[i]) == 0, "pthread_create");
		printf("%d%c", ntohs(at.sin_port), i < 2 ? ' ' : '\n');
	}
	fflush(stdout);
	pause();
	return 0;
}
