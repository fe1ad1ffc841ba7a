/*
 * A predecessor that follows the protocol by hand, without a library.
 *
 *     activate PID IP PORT PATH PROGRAM [ARGUMENT...]
 *
 * It listens on IP:PORT, named `web`, and on the Unix socket PATH, named `admin`, and executes PROGRAM
 * with LISTEN_PID=PID; where PID is `self`, with its own.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void check(int answer, const char *call) {
    if (answer < 0) {
        perror(call);
        exit(30);
    }
}

static void put(int fd, int target) {
    if (fd == target)
        return;
    check(dup2(fd, target), "dup2");
    close(fd);
}

int main(int argc, char **argv) {
    if (argc < 6)
        return 31;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char pid[16];

    if (inet_pton(AF_INET, argv[2], &in.sin_addr) != 1)
        return 33;
    strncpy(un.sun_path, argv[4], sizeof un.sun_path - 1);
    snprintf(pid, sizeof pid, "%d", getpid());

    int web = socket(AF_INET, SOCK_STREAM, 0);
    check(web, "socket");
    check(bind(web, (struct sockaddr *)&in, sizeof in), "bind");
    check(listen(web, 128), "listen");
    put(web, 3);
    int admin = socket(AF_UNIX, SOCK_STREAM, 0);
    check(admin, "socket");
    check(bind(admin, (struct sockaddr *)&un, sizeof un), "bind");
    check(listen(admin, 128), "listen");
    put(admin, 4);

    setenv("LISTEN_PID", strcmp(argv[1], "self") ? argv[1] : pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "web:admin", 1);
    execv(argv[5], argv + 5);
    perror(argv[5]);
    return 32;
}
