/*
 * gracenet: zero-downtime restart and socket activation for Linux servers, for C and whatever can call it.
 *
 *     #include "gracenet.h"
 *     #include <poll.h>
 *     #include <stdio.h>
 *     #include <sys/socket.h>
 *     #include <unistd.h>
 *
 *     static _Alignas(GRACENET_ALIGN) unsigned char memory[GRACENET_SIZE_16];
 *
 *     static int serve(int listener)
 *     {
 *         int client = accept(listener, NULL, NULL);
 *         if (client < 0)
 *             return 0;
 *         send(client, "hello\n", 6, MSG_NOSIGNAL);
 *         return close(client) == 0;
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct gracenet *net;
 *         int listener = gracenet_begin(&net, memory, sizeof memory, argc, argv, NULL); // first thing
 *         if (listener >= 0)
 *             listener = gracenet_listen(net, "tcp", ":8080", NULL, GRACENET_NONBLOCK); // inherited or fresh
 *         if (listener < 0 || gracenet_ready(net) < 0) {                                // accept from here on
 *             char why[256];
 *             gracenet_describe(net, why, sizeof why);
 *             fprintf(stderr, "%s\n", why);
 *             gracenet_end(net);
 *             return 1;
 *         }
 *         for (;;) {
 *             struct gracenet_event event;
 *             while (gracenet_poll(net, &event) > 0) {
 *                 fprintf(stderr, "%s\n", event.text);
 *                 if (event.kind == GRACENET_EVENT_DRAIN) {
 *                     for (int most = SOMAXCONN; event.leave != GRACENET_LEAVE_EXEC && most > 0; most--)
 *                         if (!serve(listener))
 *                             break;
 *                     gracenet_drained(net); // no connection is open here
 *                 } else if (event.kind == GRACENET_EVENT_EXIT) {
 *                     gracenet_end(net);
 *                     return event.status;
 *                 }
 *             }
 *             struct pollfd fds[2] = {{gracenet_fd(net), POLLIN, 0}, {listener, POLLIN, 0}};
 *             if (poll(fds, gracenet_accepts(net) ? 2 : 1, -1) > 0 && fds[1].revents)
 *                 serve(listener);
 *         }
 *     }
 *
 * That program restarts at SIGUSR2 and SIGHUP, ends at SIGTERM and SIGINT, and speaks to the service manager, if it has
 * one. No client of it is lost in a restart.
 *
 * Two kinds of handles. gracenet_begin makes a handle with a service, which restarts, drains and reports by itself and
 * tells the program what to do by events. gracenet_inherit makes a handle without a service, for a program that
 * decides about restarts itself. Each function below is for both kinds, if its section does not say otherwise.
 *
 * Memory. The caller gives the memory, and the handle keeps everything in it: gracenet makes no allocation, no thread,
 * no signal handler and no global variable. The handle points into the memory, so the memory stays where it is until
 * gracenet_end.
 *
 * Ownership. The handle owns the descriptors that were inherited, opened or added, and hands the active ones to the
 * next process. A descriptor that a function returns is borrowed: the program polls it and accepts from it, and closes
 * it by gracenet_close alone.
 *
 * Strings end with a NUL and are UTF-8. The functions read strings during the call and keep copies. Only what argv and
 * environ point to has to stay, unchanged, until gracenet_end: the handle starts the successor with it.
 *
 * Errors. A function returns a number that is not negative, or a negative errno. A function that fails leaves
 * everything as it was, if its section does not say otherwise. gracenet_error tells the last error in parts,
 * gracenet_describe in words. Every function answers a handle that is NULL with -EINVAL.
 *
 * Threads. One thread at a time uses a handle. A child that is forked and executes nothing leaves the handle alone.
 */
#ifndef GRACENET_H
#define GRACENET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gracenet;

/* How the memory of a handle has to be aligned, and how many bytes let it hold 16, 128 or 1024 inherited and as many
 * active descriptors. Every size has room for 511 arguments and 1023 variables of the environment. */
#define GRACENET_ALIGN 16
#define GRACENET_SIZE_16 17408
#define GRACENET_SIZE_128 34816
#define GRACENET_SIZE_1024 172032

/* How a service lives. A time of 0 is the default. NULL for the policy is all defaults. */
struct gracenet_policy {
    unsigned ready_ms;   /* a successor may take so long to get ready, else it is killed; 30 seconds */
    unsigned drain_ms;   /* connections may take so long to end, else the process leaves all the same; 30 seconds */
    unsigned barrier_ms; /* the service manager may take so long to confirm a successor; 5 seconds */
    unsigned retry_ms;   /* what has failed is tried again after this time; 1 second */
    unsigned flags;
};

#define GRACENET_RELOAD_EXEC 1u    /* SIGHUP asks for an exec in place, and not for a successor */
#define GRACENET_KEEP_SIGNALS 2u   /* the program keeps its signals, and asks by gracenet_request */
#define GRACENET_KEEP_ORPHANS 4u   /* as PID 1, the program reaps orphans itself */
#define GRACENET_WATCHDOG_ALIVE 8u /* the watchdog is fed only if gracenet_alive was called since the last time */
#define GRACENET_WATCHDOG_OFF 16u  /* the program feeds the watchdog itself, by gracenet_notify */

/*
 * Makes a handle with a service in `memory`, and adopts the descriptors that a service manager or a predecessor hands
 * over by LISTEN_FDS. Returns how many there are, 0 if this process was started without. Call it once, first thing in
 * main, before anything could open a descriptor on their numbers, and before a second thread exists.
 *
 * `memory` is `size` bytes, aligned to GRACENET_ALIGN; the handle holds as much as fits. argc and argv are main's. The
 * environment is libc's `environ`. gracenet_begin takes LISTEN_*, NOTIFY_SOCKET and WATCHDOG_* out of it, so that no
 * child of this process takes them for its own; a successor gets its own. gracenet_notify, gracenet_store and
 * gracenet_watchdog stand in their place.
 *
 * The service takes these signals, unless the policy says GRACENET_KEEP_SIGNALS:
 *
 *   SIGUSR2           starts a successor
 *   SIGHUP            starts a successor; with GRACENET_RELOAD_EXEC, and as PID 1, executes in place
 *   SIGTERM, SIGINT   drains and exits; the second one exits at once
 *
 * The service blocks them in this thread and in every later one. A child that the program starts inherits that mask,
 * so unblock them in the child.
 *
 * On failure *net is a handle all the same, which describes the error. Every function returns the error again, so that
 * no second socket is opened beside one that is there. Exit then: the predecessor serves on. *net is NULL if there is
 * no handle: -EINVAL for an argument or a flag, -ENOSPC for too little memory or too many arguments or variables.
 *
 *   -EPROTO   a variable cannot be read (GRACENET_VARIABLE)
 *   -ENOSPC   more descriptors than the handle holds (GRACENET_CAPACITY)
 *   -EBADF    one of the descriptors is not open
 *   other     of the system call that failed (GRACENET_CALL); the signals may be blocked
 */
int gracenet_begin(struct gracenet **net, void *memory, size_t size, int argc, char *const argv[],
                   const struct gracenet_policy *policy);

/*
 * Makes a handle without a service; gracenet_begin says the rest. The program looks after signals, restarts and the
 * watchdog itself. On failure, gracenet_listen, gracenet_claim and gracenet_ready alone return the error again, and the
 * program tells the predecessor by gracenet_refuse.
 *
 * Where NOTIFY_SOCKET is set, gracenet_ready, gracenet_restart, gracenet_wait and gracenet_exec tell the service
 * manager what it has to know of readiness and restarts. The program says the rest by gracenet_notify, such as
 * STOPPING=1.
 */
int gracenet_inherit(struct gracenet **net, void *memory, size_t size, int argc, char *const argv[]);

/* For gracenet_listen. The last two concern a fresh socket only: an inherited one is as its first owner made it. */
#define GRACENET_NONBLOCK 1u      /* O_NONBLOCK, for every process that shares the socket */
#define GRACENET_REUSEPORT 2u     /* SO_REUSEPORT */
#define GRACENET_REPLACE_STALE 4u /* replaces a Unix socket's path that nobody listens on */

/*
 * Claims the inherited socket for this address, or opens a fresh one, which listens if it is a stream. Returns its
 * descriptor.
 *
 * The network is tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixpacket or unixgram. The address is HOST:PORT, with an IP
 * address, `localhost` or nothing for HOST; or a path, or @NAME for an abstract one. With a name, an inherited socket
 * of that name is claimed before any of the address, and a successor finds the socket by the name; NULL for none.
 *
 * A service manager hands sockets over blocking, and no other process accepts from them yet; GRACENET_NONBLOCK changes
 * that. A socket from a predecessor stays as the predecessor made it.
 *
 *   -EINVAL            address, name or flags cannot be read
 *   -EPROTONOSUPPORT   no such network
 *   -ENOSPC            the handle is full; nothing was opened
 *   -EADDRINUSE, ...   of the system call that failed (GRACENET_CALL)
 */
int gracenet_listen(struct gracenet *net, const char *network, const char *address, const char *name,
                    unsigned flags);

/*
 * Claims an inherited socket as gracenet_listen does, and opens none: -ENOENT if there is none. With NULL for network
 * and address, it claims the first inherited descriptor of this name, of any kind.
 */
int gracenet_claim(struct gracenet *net, const char *network, const char *address, const char *name);

/*
 * Hands `fd` of any kind to the next process under this name: a connected socket, a memfd with state. From success on
 * the handle owns fd, and fd is close-on-exec. NULL for no name. Returns fd.
 *
 *   -EINVAL   the handle owns fd already
 */
int gracenet_add(struct gracenet *net, int fd, const char *name);

/* Closes an active descriptor: it is no longer handed over. -EBADF if it is not active. */
int gracenet_close(struct gracenet *net, int fd);

/*
 * Returns the active descriptor at this position, from 0 on, in the order in which a successor gets them; -ENOENT
 * behind the last.
 */
int gracenet_active(const struct gracenet *net, size_t position);

/*
 * Returns the pidfd of the predecessor; -ESRCH if this process was started by something else, or if the predecessor has
 * ended. A handle without a service closes the pidfd at gracenet_ready.
 */
int gracenet_predecessor(const struct gracenet *net);

/*
 * Reports that this process can serve: to the predecessor, which drains then, or without one to the service manager.
 * Closes what was inherited and not claimed. Accept from then on, and not before. Returns 0.
 *
 * A service repeats a report that the service manager did not hear, and GRACENET_EVENT_UNHEARD says so. With a handle
 * without a service, that is an error: call it again.
 *
 *   -ECANCELED   the predecessor does not wait for this process any more, and serves on: exit, accept nothing
 */
int gracenet_ready(struct gracenet *net);

/*
 * Tells the predecessor, if there is one, why this process gives up: an errno. Exit then. Returns 0. A service whose
 * gracenet_listen has failed tells the predecessor at gracenet_end by itself.
 */
int gracenet_refuse(struct gracenet *net, int reason);

/*
 * The service: what follows is for a handle of gracenet_begin. A handle of gracenet_inherit is answered with -EINVAL
 * (GRACENET_STATE).
 */

/* Returns the one descriptor to watch, by poll or epoll: it is readable when gracenet_poll has something to do. */
int gracenet_fd(const struct gracenet *net);

enum gracenet_event_kind {
    GRACENET_EVENT_OTHER,       /* for the log alone */
    GRACENET_EVENT_SERVE,       /* accept again: an exec in place has failed */
    GRACENET_EVENT_DRAIN,       /* accept no more: leave says what follows */
    GRACENET_EVENT_EXIT,        /* exit with status */
    GRACENET_EVENT_STARTED,     /* the successor pid was started, and is not ready yet */
    GRACENET_EVENT_HANDED_OVER, /* the successor pid is ready, and serves */
    GRACENET_EVENT_FAILED,      /* a restart has failed for the reason in error, and this process serves on */
    GRACENET_EVENT_REFUSED,     /* a request was refused, and nothing was changed; the number of error is EBUSY while a
                                   successor is in flight, EALREADY while this process drains, EPERM for a successor
                                   of PID 1, EAGAIN before gracenet_ready */
    GRACENET_EVENT_UNHEARD,     /* the service manager did not hear a message, for the reason in error; READY=1 is sent
                                   again after retry_ms, unless the manager is gone */
    GRACENET_EVENT_UNSEEN,      /* the successor cannot be looked at, for the reason in error; it is looked at again */
    GRACENET_EVENT_MAIN         /* the predecessor has ended, and this process is the main one now */
};

/*
 * What comes after draining.
 *
 * With HAND_OVER and EXIT, accept once more what waits in each queue, then watch the listeners no more: the next
 * gracenet_poll closes every active descriptor. Take them out of an epoll instance before, because a listener that the
 * successor shares would show there for ever. With EXEC, keep the listeners; GRACENET_EVENT_SERVE may follow.
 */
enum gracenet_leave {
    GRACENET_LEAVE_HAND_OVER = 1, /* a successor serves */
    GRACENET_LEAVE_EXIT,          /* nobody serves any more */
    GRACENET_LEAVE_EXEC           /* the program is executed in place */
};

enum gracenet_kind {
    GRACENET_NONE,          /* nothing has failed yet */
    GRACENET_CALL,          /* a system call failed: number is its errno, fd what it was about */
    GRACENET_ARGUMENT,      /* a null pointer, not UTF-8, an unknown flag, a message that cannot be read */
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
    GRACENET_VANISHED,      /* the successor ended, and its status is unknown */
    GRACENET_CANCELLED,     /* this process killed the successor: not ready in time, or not wanted any more */
    GRACENET_MANAGER        /* the successor is ready, and the service manager could not be told: number is the errno */
};

struct gracenet_error {
    enum gracenet_kind kind;
    int number;           /* 0 where the kind has none */
    int fd;               /* -1 where it is about none */
    const char *variable; /* NULL where it is about none */
};

struct gracenet_event {
    enum gracenet_event_kind kind;
    enum gracenet_leave leave;   /* of DRAIN, else 0 */
    int status;                  /* of EXIT, else 0 */
    int pid;                     /* of STARTED and HANDED_OVER, else 0 */
    struct gracenet_error error; /* of FAILED, REFUSED, UNHEARD and UNSEEN, else GRACENET_NONE */
    char text[256];              /* the line for the log, of every event */
};

/*
 * Returns 1 with what the program is to do, or to know, next; 0 if there is nothing until gracenet_fd is readable. It
 * does not wait. Call it until it returns 0 before each wait: after gracenet_ready, gracenet_request and
 * gracenet_drained too, which do not make gracenet_fd readable.
 *
 * SERVE, DRAIN and EXIT are to be obeyed. The others are for the log.
 */
int gracenet_poll(struct gracenet *net, struct gracenet_event *event);

/* Returns 1 if the program may accept: from gracenet_ready until it is told to drain, and again after SERVE. Else 0. */
int gracenet_accepts(const struct gracenet *net);

/*
 * Tells the service, while draining, that the last connection is done. Returns 0. If the program does not call it, the
 * drain ends after drain_ms. Call it when the DRAIN event is obeyed, if no connection is open then.
 */
int gracenet_drained(struct gracenet *net);

enum gracenet_request {
    GRACENET_REQUEST_SPAWN = 1, /* start a successor; once it is ready, drain and exit */
    GRACENET_REQUEST_EXEC,      /* drain, then execute the program in place, with the same PID */
    GRACENET_REQUEST_TERMINATE  /* drain, then exit; asked again, exit at once */
};

/*
 * Asks for what no signal has asked for. Returns 0; gracenet_poll says what comes of it.
 *
 *   -EINVAL   no such request
 */
int gracenet_request(struct gracenet *net, enum gracenet_request request);

/* Says that the program does its work, for GRACENET_WATCHDOG_ALIVE. Returns 0. */
int gracenet_alive(struct gracenet *net);

/*
 * The service manager: what follows stands in the place of sd_notify and its like, which find no NOTIFY_SOCKET any
 * more.
 */

/*
 * Sends one message to the service manager: assignments as sd_notify(3) has them, each on a line, 16 at most, such as
 * "STATUS=serving 3 rooms". Returns 1 if it was sent, 0 if there is no service manager. A service says READY=1,
 * RELOADING=1, STOPPING=1, MAINPID= and WATCHDOG=1 by itself. It also returns 0 while it is not the main process, since
 * the manager does not listen to it then. A time is sent with RELOADING=1, and MONOTONIC_USEC= in `text` is ignored.
 *
 *   -EINVAL      an assignment is unknown, needs a descriptor, or has a value that the manager would not take
 *   -ETIMEDOUT   the manager's socket is full: a service does not wait, a handle without a service waits 5 seconds
 *   other        of the system call that failed (GRACENET_CALL): -ECONNREFUSED and -ENOENT for a manager that is gone
 */
int gracenet_notify(struct gracenet *net, const char *text);

/*
 * Has the service manager keep a duplicate of an active descriptor under its name, over a crash and a restart. The next
 * start inherits it: claim it by name. Returns 1 if it was sent, 0 if there is no service manager. The message
 * "FDSTOREREMOVE=1\nFDNAME=..." of gracenet_notify drops it.
 *
 *   -EBADF   fd is not active
 *   other    as for gracenet_notify
 */
int gracenet_store(struct gracenet *net, int fd);

/*
 * Returns within how many microseconds the service manager wants to hear WATCHDOG=1 from this process; 0 for never. A
 * service feeds the watchdog by itself. With GRACENET_WATCHDOG_OFF, and without a service, send it at half of the time.
 *
 *   -EPROTO   a variable cannot be read (GRACENET_VARIABLE)
 */
int64_t gracenet_watchdog(struct gracenet *net);

/*
 * Restarts by hand: what follows is for a handle of gracenet_inherit. A handle of gracenet_begin, whose service does
 * this, is answered with -EINVAL (GRACENET_STATE).
 */

/*
 * Starts the program again, as this process was launched, with the active descriptors from 3 on. Returns the
 * successor's PID. Both processes run until the successor is ready and this one has drained. If the program's file was
 * replaced, the successor is the new program.
 *
 *   -EBUSY       a successor is in flight, or the predecessor still waits for this process's gracenet_ready
 *   -EALREADY    the previous successor got ready before anybody looked: drain. Called again, this starts another.
 *   -ENOENT ...  of the system call that failed: execve and no such file
 */
int gracenet_restart(struct gracenet *net);

/*
 * Waits until the successor is ready, for so many milliseconds at most; for ever, if negative; with 0 it looks, and
 * does not wait. Returns 1 if the successor is ready: stop accepting, drain, exit. Returns 0 if it is not yet ready, or
 * not yet confirmed by the service manager.
 *
 *   -ECHILD      the successor ended, or gave up (GRACENET_EXITED, _KILLED, _REFUSED, _CLOSED, _VANISHED): it was
 *                reaped, and this process serves on as before
 *   -ECANCELED   gracenet_cancel killed the successor (GRACENET_CANCELLED), with the same outcome
 *   -ESRCH       no successor was started
 *   other        watching the successor failed, or it is ready and the service manager could not be told
 *                (GRACENET_MANAGER): the successor is still in flight; wait again
 */
int gracenet_wait(struct gracenet *net, int milliseconds);

/*
 * Writes the descriptors to poll for reading while a successor is in flight, three at most, and returns how many; 0 if
 * none is in flight. Call gracenet_wait with 0 when one of them shows something, and this function again after it.
 */
int gracenet_successor_fds(struct gracenet *net, int fds[3]);

/*
 * Kills and reaps a successor that is in flight. Returns 1 if it did; 0 if there is no successor in flight, or the
 * successor is ready: look with gracenet_wait.
 */
int gracenet_cancel(struct gracenet *net);

/*
 * Executes the program anew in place, with the same PID, as PID 1 of a container has to. Returns only if that failed.
 * The new program gets what a successor gets, and the signal mask of this thread.
 *
 *   -EINTR       a signal came first, and its handler has run
 *   -EALREADY    a successor is ready, and serves
 *   -ENOENT ...  as for gracenet_restart
 */
int gracenet_exec(struct gracenet *net);

/* Every handle. */

/* Returns the last error of this handle, by its parts. */
struct gracenet_error gracenet_error(const struct gracenet *net);

/*
 * Writes the last error in words, such as "bind: address in use", with a NUL at the end, as much as fits into `size`
 * bytes. Returns the length of the whole without the NUL, as snprintf does.
 */
size_t gracenet_describe(const struct gracenet *net, char *text, size_t size);

/* Closes everything that the handle holds. The memory is the caller's again. */
void gracenet_end(struct gracenet *net);

#ifdef __cplusplus
}
#endif

#endif
