/* The interface, function by function: what each answers when it works, and when it is given what it cannot use. */
#define _GNU_SOURCE
#include "gracenet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
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

    net = (struct gracenet *)memory;
    CHECK(gracenet_begin(&net, memory, 100, 1, argv, NULL) == -ENOSPC && !net);
    CHECK(gracenet_begin(&net, memory + 1, GRACENET_SIZE_16, 1, argv, NULL) == -EINVAL && !net);
    CHECK(gracenet_begin(NULL, memory, GRACENET_SIZE_16, 1, argv, NULL) == -EINVAL);
    static const struct gracenet_policy unknown = {.flags = 32},
                                        both = {.flags = GRACENET_WATCHDOG_ALIVE | GRACENET_WATCHDOG_OFF};
    CHECK(gracenet_begin(&net, memory, sizeof memory, 1, argv, &unknown) == -EINVAL && !net);
    CHECK(gracenet_begin(&net, memory, sizeof memory, 1, argv, &both) == -EINVAL && !net);
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
    struct gracenet_event event;
    CHECK(gracenet_fd(NULL) == -EINVAL);
    CHECK(gracenet_poll(NULL, &event) == -EINVAL);
    CHECK(gracenet_accepts(NULL) == -EINVAL);
    CHECK(gracenet_drained(NULL) == -EINVAL);
    CHECK(gracenet_request(NULL, GRACENET_REQUEST_SPAWN) == -EINVAL);
    CHECK(gracenet_alive(NULL) == -EINVAL);
    CHECK(gracenet_notify(NULL, "STATUS=none") == -EINVAL);
    CHECK(gracenet_store(NULL, 0) == -EINVAL);
    CHECK(gracenet_watchdog(NULL) == -EINVAL);
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

    /* Without a service. */
    struct gracenet_event event;
    CHECK(gracenet_fd(net) == -EINVAL && gracenet_accepts(net) == -EINVAL);
    CHECK(gracenet_poll(net, &event) == -EINVAL && gracenet_error(net).kind == GRACENET_STATE);
    CHECK(gracenet_drained(net) == -EINVAL && gracenet_alive(net) == -EINVAL);
    CHECK(gracenet_request(net, GRACENET_REQUEST_SPAWN) == -EINVAL);
    /* Without a service manager; what is said is looked at all the same. */
    CHECK(gracenet_notify(net, "STATUS=none") == 0 && gracenet_watchdog(net) == 0);
    CHECK(gracenet_notify(net, NULL) == -EINVAL && gracenet_notify(net, "status") == -EINVAL);
    CHECK(gracenet_store(net, 9999) == -EBADF);

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

    static const struct gracenet_policy keeps = {.flags = GRACENET_KEEP_SIGNALS},
                                        unfed = {.flags = GRACENET_KEEP_SIGNALS | GRACENET_WATCHDOG_OFF};
    setenv("LISTEN_FDS", "1", 1);
    CHECK(gracenet_begin(&net, memory, sizeof memory, 1, argv, &keeps) == -EBADF && net);
    CHECK(gracenet_error(net).kind == GRACENET_NOT_OPEN && !getenv("LISTEN_FDS"));
    struct gracenet_event event;
    CHECK(gracenet_poll(net, &event) == -EBADF && gracenet_fd(net) == -EBADF && gracenet_restart(net) == -EBADF);
    CHECK(gracenet_listen(net, "tcp", "127.0.0.1:0", NULL, 0) == -EBADF && gracenet_ready(net) == -EBADF);
    CHECK(gracenet_error(net).kind == GRACENET_NOT_OPEN && gracenet_watchdog(net) == -EBADF);
    gracenet_end(net);

    setenv("WATCHDOG_USEC", "soon", 1);
    CHECK(gracenet_begin(&net, memory, sizeof memory, 1, argv, &keeps) == -EPROTO && net);
    CHECK(strcmp(gracenet_error(net).variable, "WATCHDOG_USEC") == 0 && gracenet_fd(net) == -EPROTO);
    gracenet_end(net);
    setenv("WATCHDOG_USEC", "soon", 1);
    CHECK(gracenet_begin(&net, memory, sizeof memory, 1, argv, &unfed) == 0 && gracenet_fd(net) > 2);
    CHECK(gracenet_watchdog(net) == -EPROTO && gracenet_error(net).kind == GRACENET_VARIABLE);
    gracenet_end(net);

    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "state", 1);
    CHECK(dup2(open("/dev/null", O_RDONLY), 3) == 3);
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 1, argv) == 1);
    CHECK(gracenet_claim(net, NULL, NULL, "state") == 3 && gracenet_active(net, 0) == 3);
    gracenet_end(net);

    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "state", 1);
    CHECK(dup2(open("/dev/null", O_RDONLY), 3) == 3);
    CHECK(gracenet_begin(&net, memory, sizeof memory, 1, argv, &keeps) == 1);
    CHECK(gracenet_add(net, 3, NULL) == -EINVAL && gracenet_active(net, 0) == -ENOENT);
    CHECK(gracenet_claim(net, NULL, NULL, "state") == 3 && gracenet_active(net, 0) == 3);
    CHECK(gracenet_add(net, 3, NULL) == -EINVAL);
    gracenet_end(net);
    CHECK(fcntl(3, F_GETFD) == -1);
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

/* A service manager of this process's own. */
static int start_manager(void)
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
    return manager;
}

static int is_silent(int manager)
{
    char byte;
    return recv(manager, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN;
}

/* What a program has to say itself. */
static void says(struct gracenet *net, int manager)
{
    CHECK(gracenet_notify(net, "STATUS=as it is\nEXTEND_TIMEOUT_USEC=5000000\n") == 1);
    CHECK(strcmp(heard(manager), "STATUS=as it is\nEXTEND_TIMEOUT_USEC=5000000") == 0);
    CHECK(gracenet_notify(net, "RELOADING=1\nMONOTONIC_USEC=7") == 1);
    const char *reloading = heard(manager);
    CHECK(strncmp(reloading, "RELOADING=1\nMONOTONIC_USEC=", 27) == 0 && strcmp(reloading + 27, "7") != 0);
    static const char *const good[] = {
        "READY=1", "STOPPING=1", "STATUS=", "ERRNO=2", "BUSERROR=org.example.Error", "VARLINKERROR=org.example.Error",
        "EXIT_STATUS=255", "MAINPID=1", "MAINPIDFDID=18446744073709551615", "NOTIFYACCESS=all", "WATCHDOG=1",
        "WATCHDOG=trigger", "WATCHDOG_USEC=1", "EXTEND_TIMEOUT_USEC=0", "RESTART_RESET=1",
        "FDSTOREREMOVE=1\nFDNAME=state", "X_GENERATION=7",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(gracenet_notify(net, good[i]) == 1);
        CHECK(strcmp(heard(manager), good[i]) == 0);
    }
    static const char *const bad[] = {
        "", "\n", "READY", "READY=0", "ready=1", "ERRNO=0", "ERRNO=4096", "ERRNO=-1", "EXIT_STATUS=256", "MAINPID=0",
        "MAINPID=+1", "MAINPID=4294967296", "MAINPIDFDID=18446744073709551616", "NOTIFYACCESS=some", "WATCHDOG=2",
        "WATCHDOG_USEC=", "WATCHDOG_USEC=18446744073709551615", "FDSTORE=1", "BARRIER=1", "FDSTOREREMOVE=1",
        "FDNAME=a:b\nFDSTOREREMOVE=1", "X_=1", "X_small=1", "OTHER=1", "STATUS=\xff",
        "X_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=\nX_=",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(gracenet_notify(net, bad[i]) == -EINVAL);
    CHECK(gracenet_watchdog(net) == 1000000);

    int fd = open("/dev/null", O_RDONLY);
    CHECK(gracenet_add(net, fd, "state") == fd && gracenet_store(net, fd) == 1);
    CHECK(strcmp(heard(manager), "FDSTORE=1\nFDNAME=state") == 0);
    CHECK(gracenet_close(net, fd) == 0 && gracenet_store(net, fd) == -EBADF);
    CHECK(is_silent(manager));
}

/* The manager is told of readiness, and that a restart began and failed; no child of this process can speak for it. */
static void notifies(void)
{
    int manager = start_manager();
    static char absent[] = "/nonexistent";
    char *argv[] = {absent, NULL};
    struct gracenet *net;
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 1, argv) == 0);
    CHECK(!getenv("NOTIFY_SOCKET") && !getenv("WATCHDOG_USEC"));
    says(net, manager);
    CHECK(gracenet_ready(net) == 0);
    CHECK(strcmp(heard(manager), "READY=1") == 0);
    CHECK(gracenet_restart(net) == -ENOENT);
    CHECK(strncmp(heard(manager), "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
    const char *failed = heard(manager);
    CHECK(strncmp(failed, "READY=1\nSTATUS=", 15) == 0 && strstr(failed, "execve"));
    CHECK(is_silent(manager));
    close(manager);
    CHECK(gracenet_notify(net, "STATUS=alone") == -ECONNREFUSED && gracenet_error(net).kind == GRACENET_CALL);
    gracenet_end(net);
}

/* The next event, which is of this kind. */
static struct gracenet_event next(struct gracenet *net, enum gracenet_event_kind kind)
{
    struct gracenet_event event;
    struct pollfd shown = {.fd = gracenet_fd(net), .events = POLLIN};
    while (gracenet_poll(net, &event) == 0)
        CHECK(poll(&shown, 1, 5000) == 1);
    if (event.kind != kind)
        fprintf(stderr, "%s\n", event.text);
    CHECK(event.kind == kind && event.text[0]);
    return event;
}

static int has_none(struct gracenet *net)
{
    struct gracenet_event event;
    return gracenet_poll(net, &event) == 0;
}

/* A service says by itself what its manager has to know, and refuses what it does itself. */
static void lives(int manager, int child)
{
    static char absent[] = "/nonexistent";
    char *argv[] = {absent, NULL};
    const struct gracenet_policy policy = {.drain_ms = 50, .flags = GRACENET_RELOAD_EXEC | GRACENET_WATCHDOG_ALIVE};
    struct gracenet *net;
    CHECK(gracenet_begin(&net, memory, GRACENET_SIZE_16, 1, argv, &policy) == 0);
    CHECK(!getenv("NOTIFY_SOCKET") && !getenv("WATCHDOG_USEC"));

    /* What belongs to a handle without a service. */
    int fds[3];
    CHECK(gracenet_restart(net) == -EINVAL && gracenet_error(net).kind == GRACENET_STATE);
    CHECK(gracenet_wait(net, 0) == -EINVAL && gracenet_successor_fds(net, fds) == -EINVAL);
    CHECK(gracenet_cancel(net) == -EINVAL && gracenet_exec(net) == -EINVAL);

    says(net, manager);
    int fd = open("/dev/null", O_RDONLY);
    CHECK(gracenet_add(net, fd, NULL) == fd && gracenet_add(net, fd, NULL) == -EINVAL && gracenet_close(net, fd) == 0);
    CHECK(gracenet_predecessor(net) == -ESRCH);
    CHECK(gracenet_claim(net, "tcp", ":0", NULL) == -ENOENT && gracenet_claim(net, NULL, NULL, "http") == -ENOENT);
    CHECK(gracenet_listen(net, "tcp", ":http", NULL, 0) == -EINVAL && gracenet_error(net).kind == GRACENET_ADDRESS);
    int listener = gracenet_listen(net, "tcp", "127.0.0.1:0", "http", GRACENET_NONBLOCK);
    CHECK(listener > 2 && gracenet_active(net, 0) == listener && gracenet_active(net, 1) == -ENOENT);

    /* Before it is ready. */
    CHECK(gracenet_poll(net, NULL) == -EINVAL && has_none(net));
    CHECK(gracenet_accepts(net) == 0 && gracenet_drained(net) == 0 && gracenet_alive(net) == 0 && has_none(net));
    CHECK(gracenet_request(net, (enum gracenet_request)0) == -EINVAL);
    CHECK(gracenet_request(net, (enum gracenet_request)4) == -EINVAL);
    CHECK(gracenet_request(net, GRACENET_REQUEST_SPAWN) == 0);
    struct gracenet_event event = next(net, GRACENET_EVENT_REFUSED);
    CHECK(event.error.kind == GRACENET_STATE && event.error.number == EAGAIN && has_none(net));

    CHECK(gracenet_ready(net) == 0 && gracenet_accepts(net) == 1 && has_none(net));
    CHECK(gracenet_ready(net) == 0);
    CHECK(strcmp(heard(manager), "READY=1") == 0);
    CHECK(strcmp(heard(manager), "STATUS=serving 1 socket") == 0);

    /* The watchdog is fed once for one sign of life. */
    struct pollfd shown = {.fd = gracenet_fd(net), .events = POLLIN};
    CHECK(poll(&shown, 1, 5000) == 1 && has_none(net));
    CHECK(strcmp(heard(manager), "WATCHDOG=1") == 0);
    CHECK(poll(&shown, 1, 5000) == 1 && has_none(net) && is_silent(manager));

    /* A successor that cannot be started, and one that is not ready in time, by signal and by request. */
    kill(getpid(), SIGUSR2);
    event = next(net, GRACENET_EVENT_FAILED);
    CHECK(event.error.kind == GRACENET_CALL && event.error.number == ENOENT && event.error.fd == -1);
    CHECK(strcmp(event.text, "restart failed: execve: no such file or directory") == 0);
    CHECK(strncmp(heard(manager), "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
    CHECK(strcmp(heard(manager), "READY=1\nSTATUS=restart failed: execve: no such file or directory") == 0);
    CHECK(gracenet_accepts(net) == 1);

    /* In place: what is open has 50 ms, then it is executed, which fails. */
    kill(getpid(), SIGHUP);
    event = next(net, GRACENET_EVENT_DRAIN);
    CHECK(event.leave == GRACENET_LEAVE_EXEC && gracenet_accepts(net) == 0);
    CHECK(gracenet_request(net, GRACENET_REQUEST_SPAWN) == 0);
    event = next(net, GRACENET_EVENT_REFUSED);
    CHECK(event.error.number == EALREADY);
    event = next(net, GRACENET_EVENT_FAILED);
    CHECK(event.error.number == ENOENT);
    next(net, GRACENET_EVENT_SERVE);
    CHECK(gracenet_accepts(net) == 1 && gracenet_active(net, 0) == listener && has_none(net));
    CHECK(strncmp(heard(manager), "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
    const char *failed = heard(manager);
    while (strncmp(failed, "RELOADING=1", 11) == 0)
        failed = heard(manager);
    CHECK(strcmp(failed, "READY=1\nSTATUS=restart failed: execve: no such file or directory") == 0);

    /* The end: the listener is closed at the next call, and this process leaves when nothing is open. */
    CHECK(gracenet_request(net, GRACENET_REQUEST_TERMINATE) == 0);
    event = next(net, GRACENET_EVENT_DRAIN);
    CHECK(event.leave == GRACENET_LEAVE_EXIT && event.error.kind == GRACENET_NONE);
    CHECK(gracenet_active(net, 0) == listener);
    CHECK(strncmp(heard(manager), "STOPPING=1", 10) == 0);
    CHECK(gracenet_drained(net) == 0);
    event = next(net, GRACENET_EVENT_EXIT);
    CHECK(event.status == 0 && gracenet_active(net, 0) == -ENOENT && fcntl(listener, F_GETFD) == -1);
    CHECK(has_none(net) && is_silent(manager));
    gracenet_end(net);
    CHECK(fcntl(shown.fd, F_GETFD) == -1);
    exit(child);
}

/* A child does it, because its signals stay blocked. */
static void has_service(void)
{
    int manager = start_manager(), status;
    pid_t child = fork();
    if (child == 0)
        lives(manager, 7);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    close(manager);
}

/* Ends a successor that serves. */
static void end(int pid)
{
    int status;
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
}

/* A service over a successor: started, killed for being late or unwanted, and ready. The successor is this program. */
static void restarts(char **argv)
{
    static char sleeps[] = "sleeps", becomes_ready[] = "becomes ready";
    const struct gracenet_policy policy = {.ready_ms = 200, .flags = GRACENET_KEEP_SIGNALS};
    struct gracenet *net;
    char *late[] = {argv[0], sleeps, NULL};
    CHECK(gracenet_begin(&net, memory, sizeof memory, 2, late, &policy) == 0);
    CHECK(gracenet_ready(net) == 0);
    CHECK(gracenet_request(net, GRACENET_REQUEST_SPAWN) == 0);
    struct gracenet_event event = next(net, GRACENET_EVENT_STARTED);
    CHECK(event.pid > 0);
    CHECK(gracenet_request(net, GRACENET_REQUEST_EXEC) == 0);
    event = next(net, GRACENET_EVENT_REFUSED);
    CHECK(event.error.number == EBUSY);
    event = next(net, GRACENET_EVENT_FAILED);
    CHECK(event.error.kind == GRACENET_CANCELLED);
    CHECK(strcmp(event.text, "restart failed: successor was not ready at the deadline") == 0);
    gracenet_end(net);

    char *soon[] = {argv[0], becomes_ready, NULL};
    CHECK(gracenet_begin(&net, memory, sizeof memory, 2, soon, &policy) == 0);
    CHECK(gracenet_ready(net) == 0);
    CHECK(gracenet_request(net, GRACENET_REQUEST_SPAWN) == 0);
    int pid = next(net, GRACENET_EVENT_STARTED).pid;
    CHECK(next(net, GRACENET_EVENT_HANDED_OVER).pid == pid);
    CHECK(next(net, GRACENET_EVENT_DRAIN).leave == GRACENET_LEAVE_HAND_OVER);
    CHECK(gracenet_request(net, GRACENET_REQUEST_TERMINATE) == 0 && has_none(net));
    CHECK(gracenet_request(net, GRACENET_REQUEST_TERMINATE) == 0);
    CHECK(next(net, GRACENET_EVENT_EXIT).status == 1);
    gracenet_end(net);
    end(pid);

    static char refuses[] = "refuses", fails[] = "fails";
    const struct { char *role; int reason; } given_up[] = {{refuses, EXDEV}, {fails, EADDRNOTAVAIL}};
    for (size_t i = 0; i < 2; i++) {
        char *gives_up[] = {argv[0], given_up[i].role, NULL};
        CHECK(gracenet_begin(&net, memory, sizeof memory, 2, gives_up, &policy) == 0);
        CHECK(gracenet_ready(net) == 0 && gracenet_request(net, GRACENET_REQUEST_SPAWN) == 0);
        next(net, GRACENET_EVENT_STARTED);
        event = next(net, GRACENET_EVENT_FAILED);
        CHECK(event.error.kind == GRACENET_REFUSED && event.error.number == given_up[i].reason);
        CHECK(gracenet_accepts(net) == 1);
        gracenet_end(net);
    }

    /* By hand. */
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 2, late) == 0);
    CHECK(gracenet_restart(net) > 0 && gracenet_restart(net) == -EBUSY);
    int fds[3];
    CHECK(gracenet_wait(net, 0) == 0 && gracenet_successor_fds(net, fds) == 2);
    CHECK(gracenet_cancel(net) == 1 && gracenet_wait(net, 0) == -ECANCELED);
    CHECK(gracenet_error(net).kind == GRACENET_CANCELLED && gracenet_successor_fds(net, fds) == 0);
    gracenet_end(net);
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 2, soon) == 0);
    pid = gracenet_restart(net);
    CHECK(pid > 0 && gracenet_wait(net, 5000) == 1 && gracenet_cancel(net) == 0);
    gracenet_end(net);
    end(pid);
    CHECK(gracenet_inherit(&net, memory, sizeof memory, 2, soon) == 0);
    pid = gracenet_restart(net);
    CHECK(pid > 0 && gracenet_successor_fds(net, fds) == 2);
    struct pollfd shown[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
    CHECK(poll(shown, 2, 5000) > 0 && gracenet_restart(net) == -EALREADY && gracenet_wait(net, 0) == 1);
    gracenet_end(net);
    end(pid);
}

/* What a successor of `restarts` does. */
static int succeed(int argc, char **argv)
{
    struct gracenet *net;
    CHECK(gracenet_begin(&net, memory, sizeof memory, argc, argv, NULL) == 0);
    int predecessor = gracenet_predecessor(net);
    CHECK(predecessor > 2 && gracenet_notify(net, "STATUS=not the main process") == 0);
    if (strcmp(argv[1], "refuses") == 0) {
        CHECK(gracenet_refuse(net, EXDEV) == 0 && gracenet_ready(net) == -ECANCELED);
        return 0;
    }
    if (strcmp(argv[1], "fails") == 0) {
        CHECK(gracenet_listen(net, "tcp", "192.0.2.1:0", NULL, 0) == -EADDRNOTAVAIL);
        gracenet_end(net);
        return 0;
    }
    if (strcmp(argv[1], "sleeps") == 0)
        pause();
    CHECK(gracenet_ready(net) == 0 && gracenet_accepts(net) == 1);
    CHECK(gracenet_predecessor(net) == predecessor);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return succeed(argc, argv);
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
    has_service();
    restarts(argv);
    return 0;
}
