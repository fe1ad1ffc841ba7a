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
 * The service does all of that, and speaks to the service manager; the server accepts, answers and obeys.
 */
#define _GNU_SOURCE
#include "gracenet.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LISTENERS = 16, CONNECTIONS = 64, REQUEST_MAX = 4096, PATIENCE = 30 };

struct connection {
    int fd; /* -1: free */
    time_t since;
    size_t len;
    char request[REQUEST_MAX];
};

static _Alignas(GRACENET_ALIGN) unsigned char memory[GRACENET_SIZE_16];
static struct gracenet *net;
static struct connection connections[CONNECTIONS];
static size_t listeners, busy, claimed;
static bool exhausted; /* a connection could not be accepted for want of something: then none is for a moment */

static int fail(const char *what)
{
    char why[256];
    gracenet_describe(net, why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
    gracenet_end(net); /* tells the predecessor */
    return 1;
}

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

/* Claims one of so many inherited sockets, or opens a fresh one; false if that failed. */
static bool open_listener(const char *argument, int inherited)
{
    const char *network = argument[0] == '/' || argument[0] == '@' ? "unix" : "tcp", *address = argument;
    const char *equals = strchr(argument, '=');
    char copy[16] = "";
    if (equals && (size_t)(equals - argument) < sizeof copy) {
        /* The argument itself stays as it is: the successor is started with it. */
        memcpy(copy, argument, (size_t)(equals - argument));
        network = copy;
        address = equals + 1;
    }
    int fd = gracenet_listen(net, network, address, NULL, GRACENET_NONBLOCK | GRACENET_REPLACE_STALE);
    if (fd < 0)
        return false;
    listeners++;
    claimed += fd < 3 + inherited; /* those are on 3 and the numbers behind it */
    return true;
}

static void hang_up(struct connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
    busy--;
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
    hang_up(connection);
}

/* Accepts a connection, if one waits and there is room for it. */
static bool accept_from(int listener)
{
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct connection *connection = &connections[i];
        if (connection->fd >= 0)
            continue;
        connection->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        connection->len = 0;
        connection->since = now();
        if (connection->fd < 0)
            exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        busy += connection->fd >= 0;
        return connection->fd >= 0;
    }
    return false;
}

/* Does what the service says; returns the status to exit with, or -1. */
static int obey(void)
{
    struct gracenet_event event;
    while (gracenet_poll(net, &event) > 0)
        switch (event.kind) {
        case GRACENET_EVENT_DRAIN:
            /* Once more what waits: the listeners are closed after this. */
            for (size_t i = 0; event.leave != GRACENET_LEAVE_EXEC && i < listeners; i++)
                while (accept_from(gracenet_active(net, i)))
                    continue;
            if (busy == 0)
                gracenet_drained(net);
            break;
        case GRACENET_EVENT_EXIT:
            return event.status;
        case GRACENET_EVENT_FAILED:
        case GRACENET_EVENT_REFUSED:
        case GRACENET_EVENT_UNHEARD:
        case GRACENET_EVENT_UNSEEN:
            fprintf(stderr, "%s\n", event.text);
            break;
        default:
            break;
        }
    return -1;
}

static int run(void)
{
    struct pollfd fds[1 + CONNECTIONS + LISTENERS];
    struct connection *watched[CONNECTIONS];
    int status;
    while ((status = obey()) < 0) {
        nfds_t count = 0;
        fds[count++] = (struct pollfd){ .fd = gracenet_fd(net), .events = POLLIN };
        for (size_t i = 0; i < CONNECTIONS; i++)
            if (connections[i].fd >= 0) {
                /* Clients that say nothing would keep all others out. */
                if (busy == CONNECTIONS && connections[i].since + PATIENCE <= now())
                    shutdown(connections[i].fd, SHUT_RDWR);
                watched[count - 1] = &connections[i];
                fds[count++] = (struct pollfd){ .fd = connections[i].fd, .events = POLLIN };
            }
        nfds_t first_listener = count;
        if (gracenet_accepts(net) == 1 && !exhausted && busy < CONNECTIONS)
            for (size_t i = 0; i < listeners; i++)
                fds[count++] = (struct pollfd){ .fd = gracenet_active(net, i), .events = POLLIN };

        int timeout = exhausted ? 100 : busy == CONNECTIONS ? 1000 : -1;
        exhausted = false;
        if (poll(fds, count, timeout) < 0) {
            if (errno != EINTR) /* more than the limit of open files, which was lowered since */
                poll(NULL, 0, 100);
            continue;
        }
        for (nfds_t i = 1; i < first_listener; i++)
            if (fds[i].revents)
                advance(watched[i - 1]);
        for (nfds_t i = first_listener; i < count; i++)
            if (fds[i].revents)
                accept_from(fds[i].fd);
        if (busy == 0 && gracenet_accepts(net) == 0)
            gracenet_drained(net);
    }
    return status;
}

int main(int argc, char **argv)
{
    const struct gracenet_policy policy = { .flags = GRACENET_RELOAD_EXEC };
    int inherited = gracenet_begin(&net, memory, sizeof memory, argc, argv, &policy);
    if (inherited < 0)
        return fail("inherit");
    signal(SIGPIPE, SIG_IGN); /* whoever reads what is printed may leave */
    if (argc < 2 && !open_listener("127.0.0.1:8080", inherited))
        return fail("127.0.0.1:8080");
    for (int i = 1; i < argc; i++)
        if (!open_listener(argv[i], inherited))
            return fail(argv[i]);
    for (size_t i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;

    /* Before it reports: whoever reads this may be slow, and the predecessor serves on meanwhile. */
    printf("ready pid=%ld inherited=%zu listeners=%zu\n", (long)getpid(), claimed, listeners);
    fflush(stdout);
    if (gracenet_ready(net) < 0)
        return fail("ready");
    int status = run();
    gracenet_end(net);
    return status;
}
