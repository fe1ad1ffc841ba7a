/*
 * A successor on libsystemd, which believes LISTEN_PID only.
 *
 * It prints `count N`, and for each descriptor `fd N listening=0|1 name=NAME address=ADDRESS`; then `ready`.
 * Then it answers one connection to the first descriptor with its PID and exits. Every failure is an exit
 * status of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static void print_address(int fd) {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } address;
    socklen_t len = sizeof address;
    char text[INET_ADDRSTRLEN];

    memset(&address, 0, sizeof address);
    if (getsockname(fd, &address.any, &len) < 0)
        exit(10);
    switch (address.any.sa_family) {
    case AF_INET:
        if (!inet_ntop(AF_INET, &address.in.sin_addr, text, sizeof text))
            exit(11);
        printf("%s:%d", text, ntohs(address.in.sin_port));
        break;
    case AF_UNIX:
        printf("%s", address.un.sun_path);
        break;
    default:
        exit(12);
    }
}

int main(void) {
    char **names = NULL;
    int count = sd_listen_fds_with_names(1, &names);

    if (count < 0) {
        fprintf(stderr, "sd_listen_fds_with_names: %s\n", strerror(-count));
        return 20;
    }
    if (getenv("LISTEN_PID") || getenv("LISTEN_FDS") || getenv("LISTEN_FDNAMES"))
        return 21;
    printf("count %d\n", count);
    for (int position = 0; position < count; position++) {
        int fd = SD_LISTEN_FDS_START + position;
        int listening = sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1);

        if (listening < 0)
            return 22;
        printf("fd %d listening=%d name=%s address=", fd, listening, names[position]);
        print_address(fd);
        printf("\n");
    }
    printf("ready\n");
    fflush(stdout);
    if (count == 0)
        return 0;

    int connection = accept4(SD_LISTEN_FDS_START, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return 23;
    char request[4096];
    size_t len = 0;
    while (!memmem(request, len, "\r\n\r\n", 4)) {
        ssize_t got = read(connection, request + len, sizeof request - len);
        if (got <= 0)
            return 24;
        len += got;
    }
    if (dprintf(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%d\n", getpid()) < 0)
        return 25;
    return 0;
}
