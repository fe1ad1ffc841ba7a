/* The interface, function by function: what each answers when it works, and when it is given what it cannot use. */
#define _GNU_SOURCE
#include "gracenet.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static _Alignas(GRACENET_ALIGN) unsigned char memory[GRACENET_SIZE_1024];

/* A handle in so many bytes holds so many sockets, and one more is an error that tells of it. */
static void holds(size_t size, int sockets, char **argv)
{
    struct gracenet *net;
    CHECK(gracenet_inherit(&net, memory, size, 1, argv) == 0 && net);
    for (int i = 0; i < sockets; i++) {
        int fd = open("/dev/null", O_RDONLY);
        CHECK(gracenet_add(net, fd, NULL) == fd);
        CHECK(gracenet_add(net, fd, NULL) == -EINVAL);
        CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        CHECK(gracenet_active(net, (size_t)i) == fd);
    }
    CHECK(gracenet_active(net, (size_t)sockets) == -ENOENT);
    int fd = open("/dev/null", O_RDONLY);
    CHECK(gracenet_add(net, fd, NULL) == -ENOSPC);
    CHECK(gracenet_error(net).kind == GRACENET_CAPACITY && gracenet_error(net).number == sockets + 1);
    CHECK(fcntl(fd, F_GETFD) >= 0); /* the caller's still */
    close(fd);
    int last = gracenet_active(net, (size_t)sockets - 1);
    gracenet_end(net);
    CHECK(fcntl(last, F_GETFD) == -1 && errno == EBADF);
}

static void needs_memory(char **argv)
{
    struct gracenet *net = (struct gracenet *)memory;
    CHECK(gracenet_inherit(&net, memory, 100, 1, argv) == -ENOSPC && !net);
    CHECK(gracenet_inherit(&net, memory + 1, GRACENET_SIZE_16, 1, argv) == -EINVAL && !net);
    CHECK(gracenet_inherit(&net, NULL, GRACENET_SIZE_16, 1, argv) == -EINVAL && !net);
    CHECK(gracenet_inherit(NULL, memory, GRACENET_SIZE_16, 1, argv) == -EINVAL);
    static char *many[600];
    for (size_t i = 0; i < 599; i++)
        many[i] = argv[0];
    CHECK(gracenet_inherit(&net, memory, GRACENET_SIZE_16, 599, many) == -ENOSPC && !net);
}

static void has_no_handle(void)
{
    int fds[3];
    char text[8];
    CHECK(gracenet_listen(NULL, "tcp", ":0", NULL, 0) == -EINVAL);
    CHECK(gracenet_claim(NULL, "tcp", ":0", NULL) == -EINVAL);
    CHECK(gracenet_add(NULL, 0, NULL) == -EINVAL);
    CHECK(gracenet_close(NULL, 0) == -EINVAL);
    CHECK(gracenet_active(NULL, 0) == -EINVAL);
    CHECK(gracenet_predecessor(NULL) == -EINVAL);
    CHECK(gracenet_ready(NULL) == -EINVAL);
    CHECK(gracenet_refuse(NULL, 1) == -EINVAL);
    CHECK(gracenet_restart(NULL) == -EINVAL);
    CHECK(gracenet_wait(NULL, 0) == -EINVAL);
    CHECK(gracenet_successor_fds(NULL, fds) == -EINVAL);
    CHECK(gracenet_cancel(NULL) == -EINVAL);
    CHECK(gracenet_exec(NULL) == -EINVAL);
    CHECK(gracenet_error(NULL).kind == GRACENET_ARGUMENT);
    CHECK(gracenet_describe(NULL, text, sizeof text) > sizeof text && strlen(text) == sizeof text - 1);
    gracenet_end(NULL);
}

static void has_errors(struct gracenet *net)
{
    CHECK(gracenet_error(net).kind == GRACENET_NONE);
    CHECK(gracenet_listen(net, NULL, ":0", NULL, 0) == -EINVAL && gracenet_error(net).kind == GRACENET_ARGUMENT);
    CHECK(gracenet_listen(net, "tcp", NULL, NULL, 0) == -EINVAL);
    CHECK(gracenet_listen(net, "tcp", ":0", NULL, 8) == -EINVAL);
    CHECK(gracenet_listen(net, "tcp", "\xff:0", NULL, 0) == -EINVAL && gracenet_error(net).kind == GRACENET_ARGUMENT);
    CHECK(gracenet_listen(net, "tcp", ":http", NULL, 0) == -EINVAL && gracenet_error(net).kind == GRACENET_ADDRESS);
    CHECK(gracenet_listen(net, "tcp", ":0", "a:b", 0) == -EINVAL && gracenet_error(net).kind == GRACENET_ADDRESS);
    CHECK(gracenet_listen(net, "ax25", ":0", NULL, 0) == -EPROTONOSUPPORT);
    CHECK(gracenet_claim(net, "tcp", ":0", NULL) == -ENOENT && gracenet_error(net).kind == GRACENET_NOT_INHERITED);
    CHECK(gracenet_claim(net, NULL, NULL, "http") == -ENOENT);
    CHECK(gracenet_claim(net, "tcp", NULL, NULL) == -EINVAL);
    CHECK(gracenet_add(net, -1, NULL) == -EINVAL);
    CHECK(gracenet_add(net, 9999, NULL) == -EBADF);
    struct gracenet_error error = gracenet_error(net);
    CHECK(error.kind == GRACENET_CALL && error.number == EBADF && error.fd == 9999 && !error.variable);
    CHECK(gracenet_close(net, 9999) == -EBADF && gracenet_error(net).kind == GRACENET_STATE);
    CHECK(gracenet_wait(net, 0) == -ESRCH);
    CHECK(gracenet_cancel(net) == 0);
    int fds[3];
    CHECK(gracenet_successor_fds(net, fds) == 0);
    CHECK(gracenet_successor_fds(net, NULL) == -EINVAL);
    CHECK(gracenet_predecessor(net) == -ESRCH);
    CHECK(gracenet_refuse(net, 0) == -EINVAL && gracenet_refuse(net, ENOENT) == 0);

    CHECK(gracenet_listen(net, "tcp", "192.0.2.1:0", NULL, 0) == -EADDRNOTAVAIL);
    char text[64], expected[64];
    size_t len = gracenet_describe(net, text, sizeof text);
    snprintf(expected, sizeof expected, "bind on fd %d: address not available", gracenet_error(net).fd);
    CHECK(strcmp(text, expected) == 0 && len == strlen(text));
    CHECK(gracenet_describe(net, text, 5) == len && strcmp(text, "bind") == 0);
    CHECK(gracenet_describe(net, NULL, 0) == len);
}

static void listens(struct gracenet *net)
{
    int fd = gracenet_listen(net, "tcp", "127.0.0.1:0", "http", GRACENET_NONBLOCK | GRACENET_REUSEPORT);
    CHECK(fd > 2 && gracenet_active(net, 0) == fd);
    int on = 0;
    socklen_t len = sizeof on;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on);
    CHECK(getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, &len) == 0 && on);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK(gracenet_ready(net) == 0);
    CHECK(gracenet_close(net, fd) == 0 && gracenet_active(net, 0) == -ENOENT);
    CHECK(fcntl(fd, F_GETFD) == -1);
}

/* Nothing is there on the number that the variable promises, and the variable is gone all the same. */
static void inherits(char **argv)
{
    struct gracenet *net;
    setenv("LISTEN_FDS", "1", 1);
    close(3);
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 1, argv) == -EBADF && net);
    CHECK(gracenet_error(net).kind == GRACENET_NOT_OPEN && gracenet_error(net).fd == 3);
    CHECK(!getenv("LISTEN_FDS"));
    CHECK(gracenet_listen(net, "tcp", "127.0.0.1:0", NULL, 0) == -EBADF);
    gracenet_end(net);

    setenv("LISTEN_FDS", "one", 1);
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 1, argv) == -EPROTO && net);
    CHECK(gracenet_error(net).kind == GRACENET_VARIABLE);
    CHECK(strcmp(gracenet_error(net).variable, "LISTEN_FDS") == 0);
    gracenet_end(net);

    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "state", 1);
    CHECK(dup2(open("/dev/null", O_RDONLY), 3) == 3);
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 1, argv) == 1);
    CHECK(gracenet_claim(net, NULL, NULL, "state") == 3 && gracenet_active(net, 0) == 3);
    gracenet_end(net);
}

/* What the service manager hears next; the text is good until the next call. */
static const char *heard(int manager)
{
    static char message[4097];
    ssize_t len = recv(manager, message, sizeof message - 1, MSG_DONTWAIT);
    CHECK(len > 0);
    message[len] = 0;
    return message;
}

/* The manager is told of readiness, and that a restart began and failed; no child of this process can speak for it. */
static void notifies(void)
{
    int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof address.sun_family; /* the kernel chooses an abstract name */
    CHECK(bind(manager, (struct sockaddr *)&address, len) == 0);
    len = sizeof address;
    CHECK(getsockname(manager, (struct sockaddr *)&address, &len) == 0);
    char name[sizeof address];
    snprintf(name, sizeof name, "@%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "1000000", 1);

    static char absent[] = "/nonexistent";
    char *argv[] = {absent, NULL};
    struct gracenet *net;
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 1, argv) == 0);
    CHECK(!getenv("NOTIFY_SOCKET") && !getenv("WATCHDOG_USEC"));
    CHECK(gracenet_ready(net) == 0);
    CHECK(strcmp(heard(manager), "READY=1") == 0);
    CHECK(gracenet_restart(net) == -ENOENT);
    CHECK(strncmp(heard(manager), "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
    const char *failed = heard(manager);
    CHECK(strncmp(failed, "READY=1\nSTATUS=", 15) == 0 && strstr(failed, "execve"));
    CHECK(recv(manager, name, sizeof name, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    gracenet_end(net);
    close(manager);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    has_no_handle();
    needs_memory(argv);
    holds(GRACENET_SIZE_16, 16, argv);
    holds(GRACENET_SIZE_128, 128, argv);
    holds(GRACENET_SIZE_1024, 1024, argv);
    struct gracenet *net;
    CHECK(gracenet_inherit(&net, memory, sizeof memory, argc, argv) == 0);
    has_errors(net);
    listens(net);
    gracenet_end(net);
    inherits(argv);
    notifies();
    return 0;
}
