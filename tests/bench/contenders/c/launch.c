// Starts the contenders, with listeners from 3 on.
//
//	launch serve HOST COUNT PROGRAM...           executes PROGRAM
//	launch claim HOST COUNT ROUNDS PROGRAM...    starts all of them, in any order, to claim them
//
// It opens COUNT listeners on HOST, from port 20000 on. Each PROGRAM is given the addresses from the last to the
// first. `claim` starts one after the other, as a service manager would, and prints the time right before each
// execve and which program that was, from 0: `exec NANOSECONDS NUMBER`, after what the program prints.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_PORT = 20000, FIRST_FD = 3 };

extern char **environ;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void listen_at(const char *host, int position)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(FIRST_PORT + position)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	inet_pton(AF_INET, host, &address.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (fd != FIRST_FD + position || bind(fd, (void *)&address, sizeof address) || listen(fd, 4096))
		fail(host);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	// Where that may be asked for, nobody takes a processor from the contenders, see ../../README.md.
	struct sched_param priority = {.sched_priority = 1};
	sched_setscheduler(0, SCHED_FIFO, &priority);
	int claim = !strcmp(argv[1], "claim"), count = atoi(argv[3]);
	int inherited = getenv("BENCH_OPENS") ? 0 : count;
	closefrom(FIRST_FD);
	for (int position = 0; position < inherited; position++)
		listen_at(argv[2], position);

	static char pid[32], fds[32];
	char *names = malloc(16 + 6 * count), *at = names + sprintf(names, "LISTEN_FDNAMES=");
	char **args = calloc(count + 3, sizeof *args), **arg = args + 2;
	for (int position = 0; position < count; position++)
		at += sprintf(at, "%ss%d", position ? ":" : "", position);
	for (int position = count; position--;)
		if (asprintf(arg++, "%s:%d", argv[2], FIRST_PORT + position) < 0)
			fail("memory");
	sprintf(fds, "LISTEN_FDS=%d", inherited);
	if (inherited) {
		putenv(pid), putenv(fds);
		// The one contender that finds them by name.
		if (getenv("BENCH_NAMES"))
			putenv(names);
	}

	if (!claim) {
		sprintf(pid, "LISTEN_PID=%d", getpid());
		putenv(pid);
		int bare = getenv("BENCH_BARE") != NULL;
		args[bare] = argv[4];
		if (!bare)
			args[1] = "serve";
		execve(argv[4], args + bare, environ);
		fail(argv[4]);
	}
	sprintf(pid, "LISTEN_PID=0");
	putenv(pid);
	args[1] = "claim";
	int programs = argc - 5, order[programs];
	for (int program = 0; program < programs; program++)
		order[program] = program;
	for (int round = atoi(argv[4]); round--;) {
		for (int last = programs - 1; last > 0; last--) {
			int other = random() % (last + 1), moved = order[last];
			order[last] = order[other], order[other] = moved;
		}
		for (int turn = 0; turn < programs; turn++) {
			static struct timespec time;
			int status, program = order[turn];
			args[0] = argv[5 + program];
			pid_t child = vfork();
			if (child == 0) {
				sprintf(pid, "LISTEN_PID=%d", getpid());
				clock_gettime(CLOCK_MONOTONIC, &time);
				execve(args[0], args, environ);
				_exit(127);
			}
			if (waitpid(child, &status, 0) != child || status)
				fail(args[0]);
			printf("exec %ld %d\n", time.tv_sec * 1000000000 + time.tv_nsec, program);
			fflush(stdout);
		}
	}
	return 0;
}
