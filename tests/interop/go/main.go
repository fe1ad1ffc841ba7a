// A server on the Go original: what it is asked over HTTP, and how it is told to restart, is as in
// examples/serve.rs, so each can take the other's place under the same arguments.
//
//	main ADDRESS...
//
// Arguments that begin with -- are options of the other's and ignored. An ADDRESS that begins with a slash is a Unix socket's path. It prints `ready pid=N` when it can accept.
// SIGUSR2 starts the program that its first argument names by now and prints `started pid=N`, or
// `restart failed: why`; SIGTERM makes it stop accepting, drain and exit.
//
// With GRACE_REPORT=1 it reports to a predecessor that has given it a LISTEN_READY_FD, of which the original
// knows nothing. With GRACE_UNSET=1 it takes what the original would pass on to a successor, though it was
// meant for itself alone, out of its environment.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/facebookgo/grace/gracenet"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGTERM)

	var grace gracenet.Net
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	server.SetKeepAlivesEnabled(false)
	for _, address := range os.Args[1:] {
		if strings.HasPrefix(address, "--") {
			continue
		}
		listener, err := listen(&grace, address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go server.Serve(listener)
	}
	if os.Getenv("GRACE_REPORT") == "1" {
		report()
	}
	if os.Getenv("GRACE_UNSET") == "1" {
		for _, name := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "LISTEN_READY_FD"} {
			os.Unsetenv(name)
		}
	}
	fmt.Printf("ready pid=%d\n", os.Getpid())

	for received := range signals {
		if received == syscall.SIGTERM {
			break
		}
		if pid, err := grace.StartProcess(); err != nil {
			fmt.Printf("restart failed: %v\n", err)
		} else {
			fmt.Printf("started pid=%d\n", pid)
		}
	}
	patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func listen(grace *gracenet.Net, address string) (net.Listener, error) {
	if !strings.HasPrefix(address, "/") {
		return grace.Listen("tcp", address)
	}
	listener, err := grace.Listen("unix", address)
	if err != nil {
		return nil, err
	}
	// Or the path would go with the listener's creator, though a successor serves it.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	return listener, nil
}

func answer(response http.ResponseWriter, request *http.Request) {
	if request.URL.Path != "/" {
		http.NotFound(response, request)
		return
	}
	fmt.Fprintf(response, "%d\n", os.Getpid())
}

func report() {
	fd, err := strconv.Atoi(os.Getenv("LISTEN_READY_FD"))
	if err != nil {
		return
	}
	socket := os.NewFile(uintptr(fd), "readiness")
	defer socket.Close()
	if _, err := socket.Write([]byte("READY=1")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
