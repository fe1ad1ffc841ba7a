/*
 * A stand-in for a service manager: starts a program with NOTIFY_SOCKET and WATCHDOG_USEC, and prints what it hears.
 *
 *     manager PROGRAM [ARGUMENT...]
 *
 * Each message is a line, `heard from <pid>: ASSIGNMENT ASSIGNMENT...`. Descriptors that come with a message are closed
 * once it is printed, which is the answer to BARRIER=1. When the last process has ended it prints the status of each,
 * `ended <pid> <status>`, and exits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void hear(int manager)
{
    char text[4097];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec part = { text, sizeof text - 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1,
                              .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t len = recvmsg(manager, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0)
        return;
    text[len] = '\0';
    for (char *newline; (newline = strchr(text, '\n'));)
        *newline = ' ';
    struct ucred sender = { 0 };
    int fds[8], count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_type == SCM_CREDENTIALS)
            memcpy(&sender, CMSG_DATA(part), sizeof sender);
        if (part->cmsg_type == SCM_RIGHTS) {
            count = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(part), (size_t)count * sizeof(int));
        }
    }
    printf("heard from %ld: %s\n", (long)sender.pid, text);
    while (count > 0)
        close(fds[--count]);
}

int main(int argc, char **argv)
{
    int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t len = sizeof address.sun_family; /* the kernel chooses an abstract name */
    if (argc < 2 || bind(manager, (struct sockaddr *)&address, len) != 0)
        return 1;
    len = sizeof address;
    getsockname(manager, (struct sockaddr *)&address, &len);
    setsockopt(manager, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    char name[sizeof address];
    snprintf(name, sizeof name, "@%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "400000", 1);
    setvbuf(stdout, NULL, _IOLBF, 0);

    if (fork() == 0) {
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    for (int ended = 0;;) {
        struct pollfd shown = { .fd = manager, .events = POLLIN };
        if (poll(&shown, 1, 20) > 0) {
            hear(manager);
            continue;
        }
        for (int status; (ended = waitpid(-1, &status, WNOHANG)) > 0;)
            printf("ended %d %d\n", ended, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        if (ended < 0 && errno == ECHILD)
            return 0;
    }
}
