// Serve opens a hypervisor provider inside a nested host and serves it on a
// socket there, so that a test outside can hold it to the contract:
//
//	serve PROVIDER DIR SOCKET [LISTEN PEER [LOADERS]]
//	serve probe
//
// DIR is where the provider keeps what it keeps; at LISTEN running machines come
// in, which other hosts reach as PEER; LOADERS has what boots guests of Xen, where
// that is not Debian's. The second form tries the processor's
// virtualisation, in a process of its own.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/libvirt"
	"consort.dev/consort/hypervisor/remote"
	"consort.dev/consort/hypervisor/xen"
	"consort.dev/consort/internal/kvmprobe"
)

// providers opens each kind of hypervisor that a nested host can be.
var providers = map[string]func(ctx context.Context, dir, listen, peer, loaders string) (driver.Host, error){
	"xen": func(ctx context.Context, dir, listen, peer, loaders string) (driver.Host, error) {
		return xen.Open(ctx, xen.Config{Dir: filepath.Join(dir, "machines"), RunDir: filepath.Join(dir, "run"), Listen: listen, Peer: peer, Loaders: loaders})
	},
	"libvirt": func(ctx context.Context, dir, _, peer, _ string) (driver.Host, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return libvirt.Open(ctx, libvirt.Config{Dir: filepath.Join(dir, "machines"), Peer: peer, Probe: []string{self, "probe"}})
	},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "probe" {
		return kvmprobe.Child()
	}
	if len(args) < 3 || len(args) > 6 || providers[args[0]] == nil {
		return fmt.Errorf("usage: serve PROVIDER DIR SOCKET [LISTEN PEER [LOADERS]]")
	}
	args = append(args, "", "", "")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := providers[args[0]](ctx, args[1], args[3], args[4], args[5])
	if err != nil {
		return err
	}
	os.Remove(args[2]) // of an earlier one
	l, err := net.Listen("unix", args[2])
	if err != nil {
		return err
	}
	return remote.Serve(ctx, l, h)
}
