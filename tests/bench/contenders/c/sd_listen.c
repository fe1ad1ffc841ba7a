// libsystemd's sd_listen_fds, and a hash table of the addresses, which it does not have. It claims, and cannot
// restart.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

static long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000 + time.tv_nsec;
}

static void mark(const char *what)
{
	if (write(-1, what, strlen(what)) == 0)
		abort();
}

int main(int argc, char **argv)
{
	long entry = now();
	mark("claim");
	int count = sd_listen_fds(1);
	if (count != argc - 2 || !hcreate(2 * count))
		return 1;
	for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; fd++) {
		struct sockaddr_in address;
		socklen_t len = sizeof address;
		char ip[INET_ADDRSTRLEN], *key;
		if (sd_is_socket(fd, AF_INET, SOCK_STREAM, 1) <= 0 || getsockname(fd, (void *)&address, &len) ||
		    asprintf(&key, "%s:%d", inet_ntop(AF_INET, &address.sin_addr, ip, sizeof ip),
			     ntohs(address.sin_port)) < 0 ||
		    !hsearch((ENTRY){key, (void *)(long)fd}, ENTER))
			return 1;
	}
	for (int arg = 2; arg < argc; arg++)
		if (!hsearch((ENTRY){argv[arg], NULL}, FIND))
			return 1;
	mark("claimed");
	printf("claimed %ld %ld\n", entry, now());
	return 0;
}
