/*
 * A small HTTP server in C that restarts without losing a connection: what `serve` does, without its options.
 *
 *     server [NETWORK=]ADDRESS...
 *
 * The network is tcp, or unix if the address begins with / or @; without an address it is 127.0.0.1:8080. When it can
 * accept, it prints `ready pid=<pid> inherited=<n> listeners=<n>`. It answers GET / with its PID.
 *
 *     SIGUSR2           starts a successor; when that is ready, drains and exits
 *     SIGHUP            drains, then executes in place
 *     SIGTERM, SIGINT   drains and exits; the second one exits at once
 *
 * As PID 1 of a container it collects the orphans that are given to it, and restarts in place alone.
 */
#define _GNU_SOURCE
#include "gracenet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LISTENERS = 16, CONNECTIONS = 64, REQUEST_MAX = 4096, PATIENCE = 30 };

enum phase { SERVING, RESTARTING, DRAINING };

struct connection {
    int fd; /* -1: free */
    size_t len;
    char request[REQUEST_MAX];
};

struct server {
    struct gracenet *net;
    int signals;
    size_t listeners, claimed;
    enum phase phase;
    bool then_exec; /* what comes after draining */
    bool exhausted; /* a connection could not be accepted for want of something: then none is for a moment */
    bool crowded;   /* it serves, and has room for no more connections: one has to end in time */
    bool unheard;   /* the service manager has yet to hear that this process is ready */
    time_t deadline;
    struct connection connections[CONNECTIONS];
};

static _Alignas(GRACENET_ALIGN) unsigned char memory[GRACENET_SIZE_16];
static struct server server;

static void complain(const char *what)
{
    char why[256];
    gracenet_describe(server.net, why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
}

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static void drain(bool then_exec)
{
    server.phase = DRAINING;
    server.then_exec = then_exec;
    server.deadline = now() + PATIENCE;
}

/* Claims or opens one socket; false if that failed. */
static bool open_listener(char *argument)
{
    const char *network = argument[0] == '/' || argument[0] == '@' ? "unix" : "tcp", *address = argument;
    char *equals = strchr(argument, '=');
    char copy[16] = "";
    if (equals && (size_t)(equals - argument) < sizeof copy) {
        /* The argument itself stays as it is: the successor is started with it. */
        memcpy(copy, argument, (size_t)(equals - argument));
        network = copy;
        address = equals + 1;
    }
    /* gracenet_listen alone would do; but the ready line tells how many were inherited. */
    int fd = gracenet_claim(server.net, network, address, NULL);
    if (fd >= 0)
        server.claimed++;
    else if (fd == -ENOENT)
        fd = gracenet_listen(server.net, network, address, NULL, GRACENET_NONBLOCK | GRACENET_REPLACE_STALE);
    if (fd < 0) {
        complain(argument);
        gracenet_refuse(server.net, -fd);
        return false;
    }
    /* A service manager hands sockets over blocking, and no other process accepts from them yet. */
    if (gracenet_predecessor(server.net) < 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return true;
}

static bool begin(int argc, char **argv)
{
    if (gracenet_inherit(&server.net, memory, sizeof memory, argc, argv) < 0) {
        complain("inherit");
        return false;
    }

    /* Whoever reads what is said may leave. */
    signal(SIGPIPE, SIG_IGN);

    /* From here on these wait until they are read. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (getpid() == 1)
        sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server.signals < 0) {
        perror("signalfd");
        return false;
    }

    static char fallback[] = "127.0.0.1:8080";
    if (argc < 2 && !open_listener(fallback))
        return false;
    for (int i = 1; i < argc; i++)
        if (!open_listener(argv[i]))
            return false;
    while (gracenet_active(server.net, server.listeners) >= 0)
        server.listeners++;
    for (size_t i = 0; i < CONNECTIONS; i++)
        server.connections[i].fd = -1;

    /* Before it reports: whoever reads this may be slow, and the predecessor serves on meanwhile. */
    printf("ready pid=%ld inherited=%zu listeners=%zu\n", (long)getpid(), server.claimed, server.listeners);
    fflush(stdout);
    bool is_successor = gracenet_predecessor(server.net) >= 0;
    int told = gracenet_ready(server.net);
    if (told < 0) {
        complain("ready");
        /* Where it is the service manager that has not heard, nobody else would serve: it is told again. */
        if (is_successor || told == -ECANCELED)
            return false;
        server.unheard = true;
    }
    return true;
}

static void restart(void)
{
    if (getpid() == 1) {
        fprintf(stderr, "restart failed: no successor outlives PID 1, which restarts in place\n");
        return;
    }
    int pid = gracenet_restart(server.net);
    if (pid > 0) {
        server.phase = RESTARTING;
        server.deadline = now() + PATIENCE;
    } else if (pid == -EALREADY) {
        drain(false);
    } else {
        complain("restart failed");
    }
}

/* The successor showed something, or is late. */
static void look_at_successor(bool late)
{
    int ready = gracenet_wait(server.net, 0);
    if (ready == 0 && late) {
        /* One that got ready at the last moment stays. */
        gracenet_cancel(server.net);
        ready = gracenet_wait(server.net, 0);
    }
    int fds[3];
    if (ready == 1) {
        drain(false);
    } else if (ready == 0 && late) {
        /* It is ready, and the service manager has yet to say that it knows. */
        server.deadline = now() + 1;
    } else if (ready < 0) {
        complain("restart failed");
        /* One that cannot be watched, or that the service manager does not know of, is in flight still. */
        if (gracenet_successor_fds(server.net, fds) > 0)
            server.deadline = now() + 1;
        else
            server.phase = SERVING;
    }
}

/* Does what the signals ask for; false if the program is to end at once. */
static bool handle_signals(void)
{
    static bool terminated;
    struct signalfd_siginfo info;
    while (read(server.signals, &info, sizeof info) == sizeof info) {
        switch (info.ssi_signo) {
        case SIGUSR2:
            if (server.phase != DRAINING)
                restart();
            break;
        case SIGHUP:
            if (server.phase == SERVING)
                drain(true);
            break;
        case SIGCHLD:
            while (waitpid(-1, NULL, WNOHANG) > 0)
                continue;
            break;
        default:
            if (terminated)
                return false;
            terminated = true;
            if (server.phase == RESTARTING)
                gracenet_cancel(server.net); /* one that is ready stays */
            drain(false);
        }
    }
    return true;
}

static void answer(int fd, const char *request)
{
    char body[32], text[160];
    const char *status = "200 OK";
    int len = snprintf(body, sizeof body, "%ld\n", (long)getpid());
    if (strncmp(request, "GET / HTTP/1.", 13) != 0) {
        status = "400 Bad Request";
        len = snprintf(body, sizeof body, "malformed\n");
    }
    len = snprintf(text, sizeof text,
                   "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
                   status, len, body);
    /* A fresh connection has room for this. A client that is gone needs no answer. */
    if (send(fd, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
        shutdown(fd, SHUT_WR);
}

static void advance(struct connection *connection)
{
    size_t room = sizeof connection->request - 1 - connection->len;
    ssize_t len = recv(connection->fd, connection->request + connection->len, room, MSG_DONTWAIT);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (len > 0) {
        connection->len += (size_t)len;
        connection->request[connection->len] = '\0';
        if (!strstr(connection->request, "\r\n\r\n") && connection->len + 1 < sizeof connection->request)
            return;
    }
    if (len >= 0 && connection->len > 0)
        answer(connection->fd, connection->request);
    close(connection->fd);
    connection->fd = -1;
}

static struct connection *free_connection(void)
{
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (server.connections[i].fd < 0)
            return &server.connections[i];
    return NULL;
}

static void accept_from(int listener)
{
    struct connection *connection = free_connection();
    if (!connection)
        return;
    connection->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    connection->len = 0;
    if (connection->fd < 0)
        server.exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
}

static size_t busy(void)
{
    size_t count = 0;
    for (size_t i = 0; i < CONNECTIONS; i++)
        count += server.connections[i].fd >= 0;
    return count;
}

static int run(void)
{
    struct pollfd fds[1 + 3 + LISTENERS + CONNECTIONS];
    struct connection *connections[CONNECTIONS];
    for (;;) {
        if (server.phase == DRAINING && busy() == 0) {
            if (!server.then_exec)
                return 0;
            gracenet_exec(server.net);
            complain("restart failed");
            server.phase = SERVING;
        }

        /* Clients that say nothing would keep all others out. */
        bool crowded = server.phase == SERVING && busy() == CONNECTIONS;
        if (crowded && !server.crowded)
            server.deadline = now() + PATIENCE;
        server.crowded = crowded;

        nfds_t count = 0;
        fds[count++] = (struct pollfd){ .fd = server.signals, .events = POLLIN };
        int successor[3];
        int expected = server.phase == RESTARTING ? gracenet_successor_fds(server.net, successor) : 0;
        for (int i = 0; i < expected; i++)
            fds[count++] = (struct pollfd){ .fd = successor[i], .events = POLLIN };
        nfds_t first_connection = count;
        for (size_t i = 0; i < CONNECTIONS; i++)
            if (server.connections[i].fd >= 0) {
                connections[count - first_connection] = &server.connections[i];
                fds[count++] = (struct pollfd){ .fd = server.connections[i].fd, .events = POLLIN };
            }
        nfds_t first_listener = count;
        if (server.phase != DRAINING && !server.exhausted && free_connection())
            for (size_t i = 0; i < server.listeners; i++)
                fds[count++] = (struct pollfd){ .fd = gracenet_active(server.net, i), .events = POLLIN };

        bool waits = crowded || server.phase != SERVING;
        time_t left = server.deadline - now();
        int timeout = !waits ? -1 : left > 0 ? (int)left * 1000 : 0;
        if (server.exhausted)
            timeout = 100;
        else if (server.unheard && (timeout < 0 || timeout > 1000))
            timeout = 1000;
        server.exhausted = false;
        int shown = poll(fds, count, timeout);
        if (shown < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EINVAL) { /* more than the limit of open files, which was lowered since */
                poll(NULL, 0, 100);
                continue;
            }
            perror("poll");
            return 1;
        }
        if (shown == 0 && server.unheard)
            server.unheard = gracenet_ready(server.net) < 0;

        for (nfds_t i = first_connection; i < first_listener; i++)
            if (fds[i].revents)
                advance(connections[i - first_connection]);
        for (nfds_t i = first_listener; i < count; i++)
            if (fds[i].revents)
                accept_from(fds[i].fd);
        bool late = waits && now() >= server.deadline;
        bool moved = false;
        for (nfds_t i = 1; i < first_connection; i++)
            moved |= fds[i].revents != 0;
        if (server.phase == RESTARTING && (moved || late))
            look_at_successor(late);
        else if (late)
            for (size_t i = 0; i < CONNECTIONS; i++)
                if (server.connections[i].fd >= 0) {
                    close(server.connections[i].fd);
                    server.connections[i].fd = -1;
                }
        if (fds[0].revents && !handle_signals())
            return 0;
    }
}

int main(int argc, char **argv)
{
    if (!begin(argc, argv))
        return 1;
    int status = run();
    gracenet_end(server.net);
    return status;
}
