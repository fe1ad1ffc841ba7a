// The Go original: gracenet of facebookgo/grace. What it prints is what all contenders print, see ../../README.md.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/facebookgo/grace/gracenet"
)

func main() {
	entry := now()
	mark("claim")
	var grace gracenet.Net
	var listeners []net.Listener
	for _, address := range os.Args[2:] {
		listener, err := grace.Listen("tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		listeners = append(listeners, listener)
	}
	mark("claimed")
	if os.Args[1] == "claim" {
		fmt.Printf("claimed %d %d\n", entry, now())
		return
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM)
	fmt.Printf("ready pid=%d\n", os.Getpid())
	for received := range signals {
		switch received {
		case syscall.SIGUSR1:
			fillHeap()
		case syscall.SIGUSR2:
			before := time.Now()
			mark("start")
			if _, err := grace.StartProcess(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			mark("started")
			time := time.Since(before)
			fmt.Fprintf(os.Stderr, "start %d\n", time.Nanoseconds())
		default:
			return
		}
	}
	_ = listeners
}

// The monotonic clock, which all processes share.
func now() int64 {
	var time syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&time)), 0)
	return time.Nano()
}

// A mark in the log of system calls: a write that fails.
func mark(what string) {
	syscall.Write(-1, []byte(what))
}

func fillHeap() {
	mib, _ := strconv.Atoi(os.Getenv("BENCH_HEAP"))
	flags := syscall.MAP_PRIVATE | syscall.MAP_ANON | syscall.MAP_POPULATE
	if _, err := syscall.Mmap(-1, 0, mib<<20, syscall.PROT_READ|syscall.PROT_WRITE, flags); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "heap %d\n", mib<<20)
}
