// The limit: a restart of which nothing can be left out, by a static program without libc.
//
//	limit serve|claim ADDRESS...
//
// It finds each ADDRESS, which is IPv4:PORT, among the sockets from 3 on with one getsockname for each socket and
// one look into a hash table for each address. On SIGUSR2 it does vfork and execve with the sockets left open. It
// does not look who LISTEN_PID means, does not wait for its successor, and reports no error.
//
// Compiled with HYGIENE it keeps the sockets from its other children, as every careful program does: one
// close_range when it begins, and one fcntl for each socket between vfork and execve. Compiled with LISTENING it asks
// each socket whether it listens, which a program has to know before it accepts from one.
//
// What it prints is what all contenders print, see ../README.md.
#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

enum { SLOTS = 8192, USR1 = 10, USR2 = 12, TERM = 15 };

struct address {
	uint16_t family, port;
	uint32_t ip;
	uint64_t zero;
};

static struct {
	uint32_t ip;
	uint16_t port;
	uint16_t fd;
} table[SLOTS];

// Always inline: what vfork's child calls would write over a frame that its parent has yet to leave.
__attribute__((always_inline)) static inline long call(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static uint64_t now(void)
{
	uint64_t time[2];
	call(__NR_clock_gettime, 1, (long)time, 0, 0, 0, 0);
	return time[0] * 1000000000 + time[1];
}

static char *text(char *to, const char *from)
{
	while (*from)
		*to++ = *from++;
	return to;
}

static char *number(char *to, uint64_t value)
{
	char digits[20];
	int len = 0;
	do
		digits[len++] = '0' + value % 10;
	while (value /= 10);
	while (len)
		*to++ = digits[--len];
	return to;
}

static uint64_t parse(const char **at)
{
	uint64_t value = 0;
	for (; **at >= '0' && **at <= '9'; ++*at)
		value = value * 10 + (**at - '0');
	return value;
}

static uint64_t variable(char **environment, const char *name)
{
	for (; *environment; environment++) {
		const char *a = *environment, *b = name;
		while (*b && *a == *b)
			a++, b++;
		if (!*b && *a == '=') {
			a++;
			return parse(&a);
		}
	}
	return 0;
}

static void mark(const char *what, size_t len)
{
	call(__NR_write, -1, (long)what, len, 0, 0, 0);
}

static size_t slot_of(uint32_t ip, uint16_t port)
{
	uint32_t hash = (ip ^ (uint32_t)port << 16 ^ port) * 0x9e3779b9;
	return hash >> 19;
}

static void inherit(uint64_t count)
{
	for (uint64_t fd = 3; fd < 3 + count; fd++) {
		struct address address;
		uint32_t len = sizeof address;
		if (call(__NR_getsockname, fd, (long)&address, (long)&len, 0, 0, 0))
			call(__NR_exit_group, 1, 0, 0, 0, 0, 0);
#ifdef LISTENING
		int listens = 0;
		uint32_t size = sizeof listens;
		// SOL_SOCKET, SO_ACCEPTCONN
		if (call(__NR_getsockopt, fd, 1, 30, (long)&listens, (long)&size, 0) || !listens)
			call(__NR_exit_group, 1, 0, 0, 0, 0, 0);
#endif
		size_t slot = slot_of(address.ip, address.port);
		while (table[slot].fd)
			slot = (slot + 1) % SLOTS;
		table[slot].ip = address.ip;
		table[slot].port = address.port;
		table[slot].fd = fd;
	}
#ifdef HYGIENE
	call(__NR_close_range, 3, 2 + count, 4, 0, 0, 0);
#endif
}

static int claim(const char *text)
{
	uint32_t ip = 0;
	for (int byte = 0; byte < 4; byte++, text++)
		ip |= (uint32_t)parse(&text) << byte * 8;
	uint16_t port = __builtin_bswap16(parse(&text));
	for (size_t slot = slot_of(ip, port); table[slot].fd; slot = (slot + 1) % SLOTS)
		if (table[slot].ip == ip && table[slot].port == port)
			return table[slot].fd;
	return -1;
}

static void line(int fd, const char *what, uint64_t a, const char *and, uint64_t b)
{
	char line[96], *at = number(text(line, what), a);
	if (and)
		at = number(text(at, and), b);
	*at++ = '\n';
	call(__NR_write, fd, (long)line, at - line, 0, 0, 0);
}

static void restart(char **argv, char **environment, uint64_t count)
{
	(void)count;
	uint64_t before = now();
	mark("start", 5);
	// vfork, on the same stack: nothing here returns before the child has executed.
	if (call(__NR_vfork, 0, 0, 0, 0, 0, 0) == 0) {
#ifdef HYGIENE
		for (uint64_t fd = 3; fd < 3 + count; fd++)
			call(__NR_fcntl, fd, 2, 0, 0, 0, 0);
#endif
		call(__NR_execve, (long)argv[0], (long)argv, (long)environment, 0, 0, 0);
		call(__NR_exit_group, 127, 0, 0, 0, 0, 0);
	}
	mark("started", 7);
	uint64_t after = now();
	line(2, "start ", after - before, NULL, 0);
}

__attribute__((used)) static void begin(long *stack)
{
	uint64_t entry = now();
	int argc = stack[0];
	char **argv = (char **)(stack + 1), **environment = argv + argc + 1;
	uint64_t count = variable(environment, "LISTEN_FDS");
	mark("claim", 5);
	inherit(count);
	int found = 0;
	for (int arg = 2; arg < argc; arg++)
		found += claim(argv[arg]) >= 0;
	mark("claimed", 7);
	if ((uint64_t)found != count || found != argc - 2)
		call(__NR_exit_group, 1, 0, 0, 0, 0, 0);
	if (argv[1][0] == 'c') {
		line(1, "claimed ", entry, " ", now());
		call(__NR_exit_group, 0, 0, 0, 0, 0, 0);
	}

	uint64_t signals = 1ull << (USR1 - 1) | 1ull << (USR2 - 1) | 1ull << (TERM - 1);
	call(__NR_rt_sigprocmask, 0, (long)&signals, 0, 8, 0, 0);
	line(1, "ready pid=", call(__NR_getpid, 0, 0, 0, 0, 0, 0), NULL, 0);
	for (;;) {
		uint64_t bytes;
		switch (call(__NR_rt_sigtimedwait, (long)&signals, 0, 0, 8, 0, 0)) {
		case USR1:
			bytes = variable(environment, "BENCH_HEAP") << 20;
			// Private, writable, in memory at once.
			call(__NR_mmap, 0, bytes, 3, 0x8022, -1, 0);
			line(2, "heap ", bytes, NULL, 0);
			break;
		case USR2:
			restart(argv, environment, count);
			break;
		case TERM:
			call(__NR_exit_group, 0, 0, 0, 0, 0, 0);
		}
	}
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n xor %ebp, %ebp\n call begin\n hlt");
