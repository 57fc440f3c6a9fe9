// Command uml-provider is an example of a hypervisor provider in a process of
// its own. Its machines are real: each is a User-Mode Linux kernel (Debian
// package user-mode-linux), which needs no hardware virtualisation.
//
//	go run ./examples/uml-provider --dir /var/lib/uml --socket /run/uml.sock
//
// Read host.go first: it holds the six verbs every host has. The files beside it
// add abilities one by one: disks that are carried elsewhere, a console,
// commands in the guest, metrics. What is kept on disk is all there is to know,
// so the process may be killed and started again at any time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"syscall"

	"consort.dev/consort/hypervisor/remote"
)

func main() {
	dir := flag.String("dir", "", "keep machines in this `folder`")
	socket := flag.String("socket", "", "serve at this `path`")
	flag.Parse()
	if err := run(*dir, *socket); err != nil {
		fmt.Fprintln(os.Stderr, "uml-provider:", err)
		os.Exit(1)
	}
}

func run(dir, socket string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	h, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	// An earlier process of ours may have left its socket; the lock on the
	// folder, which Open took, says that it is gone.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	// Whoever may open the socket may do everything: only our own user.
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	return remote.Serve(ctx, l, h)
}
