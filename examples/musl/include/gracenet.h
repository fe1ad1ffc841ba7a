/*
 * gracenet: zero-downtime restart and socket activation for Linux servers, for C and whatever can call it.
 *
 *     static _Alignas(GRACENET_ALIGN) unsigned char memory[GRACENET_SIZE_16];
 *
 *     int main(int argc, char **argv) {
 *         struct gracenet *net;
 *         gracenet_inherit(&net, memory, sizeof memory, argc, argv);     // first thing
 *         int http = gracenet_listen(net, "tcp", ":8080", NULL, GRACENET_NONBLOCK);  // inherited or fresh
 *         gracenet_ready(net);                                           // tells the predecessor
 *         for (;;) {
 *             serve_until_told_to_restart(http);                         // poll, accept
 *             int pid = gracenet_restart(net);
 *             if (pid > 0 && gracenet_wait(net, 30000) != 1)
 *                 gracenet_cancel(net);                                  // one that is ready by now stays
 *             if (pid == -EALREADY || (pid > 0 && gracenet_wait(net, 0) == 1))
 *                 drain_and_exit();                                      // the successor serves
 *         }                                                              // else this one serves on
 *     }
 *
 * Memory. The caller gives it, and everything is in it: there is no allocation, no thread, no signal handler and no
 * global variable. The handle points into it, so it stays where it is until gracenet_end.
 *
 * Ownership. The handle owns the descriptors that were inherited, opened or added, and hands those that are active to
 * the next process. A descriptor that a function returns is borrowed: poll it, accept from it, and close it with
 * gracenet_close alone.
 *
 * Strings end with a NUL and are UTF-8. They are read during the call and not kept, but for two: the names of
 * sockets, and what argv and environ point to. Those have to stay, unchanged, until gracenet_end.
 *
 * Errors. Functions return a number that is not negative, or a negative errno, and leave everything as it was if not
 * said otherwise. gracenet_error tells the last error in parts, gracenet_describe in words. A handle that is NULL is
 * answered with -EINVAL.
 *
 * Threads. One handle is used by one thread at a time.
 */
#ifndef GRACENET_H
#define GRACENET_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gracenet;

/* How the memory of a handle has to be aligned, and how many bytes let it hold 16, 128 or 1024 inherited and as many
 * active descriptors. Beside these there is room for 511 arguments and 1023 variables of the environment. */
#define GRACENET_ALIGN 16
#define GRACENET_SIZE_16 16384
#define GRACENET_SIZE_128 32768
#define GRACENET_SIZE_1024 166400

/*
 * Makes a handle in `memory`, and adopts the descriptors that a service manager or a predecessor hands over by
 * LISTEN_FDS; returns how many there are, 0 if this process was started without. Call it once, first thing in main,
 * before anything could open a descriptor on their numbers.
 *
 * `memory` is `size` bytes, aligned to GRACENET_ALIGN; the handle holds as much as fits. argc and argv are main's. The
 * environment is libc's `environ`; LISTEN_*, NOTIFY_SOCKET and WATCHDOG_* are taken out of it, so that no child of
 * this process takes them for its own. A successor gets its own.
 *
 * Where NOTIFY_SOCKET is set, the functions below tell the service manager what it has to know of readiness and
 * restarts.
 *
 * On failure *net is a handle all the same, which describes the error; if it is about the descriptors, the functions
 * that would listen or claim return it again, so that no second socket is opened beside one that is there. But it is
 * NULL if there is no handle: -EINVAL for an argument, -ENOSPC for too little memory or too many arguments or
 * variables.
 *
 *   -EPROTO   a variable cannot be read (GRACENET_VARIABLE)
 *   -ENOSPC   more descriptors than the handle holds (GRACENET_CAPACITY)
 *   -EBADF    one of the descriptors is not open
 */
int gracenet_inherit(struct gracenet **net, void *memory, size_t size, int argc, char *const argv[]);

/* For gracenet_listen. They are about a fresh socket: an inherited one is as its first owner made it. */
#define GRACENET_NONBLOCK 1u      /* O_NONBLOCK, for every process that will share it */
#define GRACENET_REUSEPORT 2u     /* SO_REUSEPORT */
#define GRACENET_REPLACE_STALE 4u /* takes a Unix socket's path that nobody listens on */

/*
 * The inherited socket for this address, or a fresh one, listening if it is a stream; returns its descriptor.
 *
 * The network is tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixpacket or unixgram. The address is HOST:PORT, with an IP
 * address, `localhost` or nothing for HOST; or a path, or @NAME for an abstract one. With a name, an inherited socket
 * of that name is claimed before any of the address, and a successor finds it so; NULL for none.
 *
 *   -EINVAL            address, name or flags cannot be read
 *   -EPROTONOSUPPORT   no such network
 *   -ENOSPC            the handle is full; nothing was opened
 *   -EADDRINUSE, ...   of the system call that failed (GRACENET_CALL)
 */
int gracenet_listen(struct gracenet *net, const char *network, const char *address, const char *name,
                    unsigned flags);

/*
 * The same for inherited sockets alone: -ENOENT where gracenet_listen would open one. With NULL for network and
 * address, the first inherited descriptor of this name, whatever it is.
 */
int gracenet_claim(struct gracenet *net, const char *network, const char *address, const char *name);

/*
 * Hands `fd` to the next process under this name, whatever it is: a connected socket, a memfd with state. From success
 * on the handle owns it, and it is close-on-exec. NULL for no name. Returns fd.
 *
 *   -EINVAL   it is the handle's already
 */
int gracenet_add(struct gracenet *net, int fd, const char *name);

/* Closes an active descriptor: it is not handed over any more. -EBADF if it is none. */
int gracenet_close(struct gracenet *net, int fd);

/*
 * The active descriptor at this position, from 0 on, in the order in which a successor gets them; -ENOENT behind the
 * last.
 */
int gracenet_active(const struct gracenet *net, size_t position);

/*
 * The pidfd of the predecessor, until gracenet_ready; -ESRCH if this process was started by something else, whose
 * sockets may be blocking ones, or it has ended. Sockets that a predecessor uses too are not to be changed.
 */
int gracenet_predecessor(const struct gracenet *net);

/*
 * Says that this process can serve now: to the predecessor, which drains then, else to the service manager. Closes
 * what was inherited and not claimed. Returns 0.
 *
 *   -ECANCELED   the predecessor does not wait for this process any more, and serves on: exit, accept nothing
 */
int gracenet_ready(struct gracenet *net);

/* Tells the predecessor, if there is one, why this process gives up: an errno. Exit then. Returns 0. */
int gracenet_refuse(struct gracenet *net, int reason);

/*
 * Starts the program again, as this process was launched, with the active descriptors on 3 and on; returns the
 * successor's PID. Both processes run until the successor is ready and this one has drained. A file that was replaced
 * since starts the new program.
 *
 *   -EBUSY       a successor is in flight, or the predecessor still waits for this process's gracenet_ready
 *   -EALREADY    one that was in flight is ready, and nobody had looked: drain
 *   -ENOENT ...  of the system call that failed: execve and no such file
 */
int gracenet_restart(struct gracenet *net);

/*
 * Waits until the successor is ready, for so many milliseconds at most; for ever, if negative; with 0 it looks, and
 * does not wait. Returns 1 if it is: stop accepting, drain, exit. Returns 0 if it is not yet.
 *
 *   -ECHILD      it ended, or gave up (GRACENET_EXITED, _KILLED, _REFUSED, _CLOSED, _VANISHED): it is collected, and
 *                this process serves on as before
 *   -ECANCELED   gracenet_cancel killed it (GRACENET_CANCELLED), with the same outcome
 *   -ESRCH       none was started
 *   other        watching it failed, or it is ready and the service manager could not be told (GRACENET_MANAGER): it
 *                is still in flight; wait again
 */
int gracenet_wait(struct gracenet *net, int milliseconds);

/*
 * What to poll for reading while a successor is in flight, for an event loop that calls gracenet_wait with 0 when one
 * of them shows something. Writes three descriptors at most, and returns how many; 0 if none is in flight.
 */
int gracenet_successor_fds(struct gracenet *net, int fds[3]);

/*
 * Kills and collects a successor that is in flight. Returns 1 if it did, 0 if there is none, or it is ready: look with
 * gracenet_wait.
 */
int gracenet_cancel(struct gracenet *net);

/*
 * Runs the program anew in place, with the same PID, as PID 1 of a container has to. Returns only if that failed. The
 * new image gets what a successor gets, and the signal mask of this thread.
 *
 *   -EINTR       a signal came first, and its handler has run
 *   -EALREADY    a successor is ready, and serves
 *   -ENOENT ...  as for gracenet_restart
 */
int gracenet_exec(struct gracenet *net);

enum gracenet_kind {
    GRACENET_NONE,          /* nothing has failed yet */
    GRACENET_CALL,          /* a system call failed: number is its errno, fd what it was about */
    GRACENET_ARGUMENT,      /* a null pointer, not UTF-8, an unknown flag */
    GRACENET_ADDRESS,       /* network, address or name cannot be read */
    GRACENET_CAPACITY,      /* the handle is too small: number is what it would have to hold */
    GRACENET_VARIABLE,      /* a variable cannot be read: variable is its name */
    GRACENET_NOT_OPEN,      /* a promised descriptor is not open: fd */
    GRACENET_NOT_INHERITED, /* no inherited socket fits */
    GRACENET_STATE,         /* the call does not go with what was called before */
    GRACENET_EXITED,        /* the successor exited: number is its status */
    GRACENET_KILLED,        /* the successor was killed: number is the signal */
    GRACENET_REFUSED,       /* the successor gave up: number is its reason */
    GRACENET_CLOSED,        /* the successor closed its end without a report, and was killed */
    GRACENET_VANISHED,      /* the successor ended, and nobody knows how */
    GRACENET_CANCELLED,     /* gracenet_cancel killed the successor */
    GRACENET_MANAGER        /* the successor is ready, and the service manager could not be told: number is the errno */
};

struct gracenet_error {
    enum gracenet_kind kind;
    int number;           /* 0 where the kind has none */
    int fd;               /* -1 where it is about none */
    const char *variable; /* NULL where it is about none */
};

/* The last error of this handle, by its parts. */
struct gracenet_error gracenet_error(const struct gracenet *net);

/*
 * Writes the last error in words, such as "bind: address in use", with a NUL at the end, as much as fits into `size`
 * bytes. Returns the length of the whole without the NUL, as snprintf does.
 */
size_t gracenet_describe(const struct gracenet *net, char *text, size_t size);

/* Closes everything the handle holds. The memory is the caller's again. */
void gracenet_end(struct gracenet *net);

#ifdef __cplusplus
}
#endif

#endif
