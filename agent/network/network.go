// Package network joins machines to networks: for each a namespace with a
// bridge, taps, and addresses by DHCP, apart from the host's own network.
package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Host makes networks on this host. Its namespaces and DHCP servers outlive the
// process, and the next one finds them by name.
type Host struct {
	dir    string // leases and pid files
	prefix string // of everything named in the kernel, so that two estates on a host never meet
	mu     sync.Mutex
	made   map[string]Network // by namespace, as Ensure made them last
}

// Network is a network to make.
type Network struct {
	Project string
	Name    string
	Subnet  netip.Prefix    // the host has its first address
	Egress  bool            // there is a way out, through the host
	Ways    []estate.Egress // where that leads; nowhere when empty
}

// Port is where a machine's NIC plugs in.
type Port struct {
	Netns string // path of the namespace
	Tap   string
	Addr  netip.Addr // the card's own on the network
}

// bridge is the name of the bridge in every namespace.
const bridge = "br0"

// Open returns the networks kept under dir.
func Open(dir string) (*Host, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	sum := sha256.Sum256([]byte(dir))
	return &Host{dir: dir, prefix: "cs" + hex.EncodeToString(sum[:3]), made: map[string]Network{}}, nil
}

// Probe says why networks cannot be made here, or returns nil.
func Probe(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fault.Unsupported.Errorf("networks need root; run the agent as root")
	}
	for _, tool := range []string{"ip", "nft", "dnsmasq"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fault.Unsupported.Errorf("networks need %s; install it", tool)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fault.Unsupported.Errorf("networks need /dev/net/tun: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "unshare", "--net", "true").CombinedOutput(); err != nil {
		return fault.Unsupported.Errorf("this kernel makes no network namespaces: %s", bytes.TrimSpace(out))
	}
	return nil
}

// Ensure makes the network, or makes it as n says. An equal one is left as it is.
func (h *Host) Ensure(ctx context.Context, n Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ns := h.namespace(n.Project, n.Name)
	if err := h.ensureBridge(ctx, ns, n); err != nil {
		return fmt.Errorf("make network %s: %w", n.Name, err)
	}
	if err := h.ensureEdge(ctx, ns, n); err != nil {
		return fmt.Errorf("keep network %s apart: %w", n.Name, err)
	}
	if err := h.ensureWayOut(ctx, ns, n); err != nil {
		return fmt.Errorf("give network %s a way out: %w", n.Name, err)
	}
	if err := h.serve(ctx, ns, n); err != nil {
		return fmt.Errorf("give addresses on network %s: %w", n.Name, err)
	}
	h.made[ns] = n
	return nil
}

func (h *Host) ensureBridge(ctx context.Context, ns string, n Network) error {
	if _, err := os.Stat(netnsPath(ns)); err != nil {
		os.Remove(h.file(ns, "rules")) // of one that went with the kernel
		if err := run(ctx, "ip", "netns", "add", ns); err != nil {
			return err
		}
	}
	if !linkExists(ctx, ns, bridge) {
		// Before anything is up: nothing ever has an address of IPv6, and what
		// machines say to each other is no business of the rules at the edge. A
		// kernel may lack these knobs, and then what they turn off.
		for _, knob := range []string{"net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1", "net.bridge.bridge-nf-call-iptables=0"} {
			run(ctx, "ip", "netns", "exec", ns, "sysctl", "-qw", knob)
		}
		// The bridge keeps one MAC: without it the MAC follows the first tap.
		if err := run(ctx, "ip", "-n", ns, "link", "add", bridge, "address", estate.MACFor(estate.MachineID(ns), 0), "type", "bridge"); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"-n", ns, "addr", "replace", netip.PrefixFrom(n.gateway(), n.Subnet.Bits()).String(), "dev", bridge},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "link", "set", bridge, "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// Change is Ensure for a network that is there; an absent one is success.
func (h *Host) Change(ctx context.Context, n Network) error {
	if _, err := os.Stat(netnsPath(h.namespace(n.Project, n.Name))); err != nil {
		return nil
	}
	return h.Ensure(ctx, n)
}

// Join makes the port of a card on a network that Ensure made, with an address
// that is its own. It may be called again.
func (h *Host) Join(ctx context.Context, project, name string, c Card) (Port, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ns, tap := h.namespace(project, name), c.port()
	n, ok := h.made[ns]
	if !ok {
		return Port{}, fault.NotFound.Errorf("join machine %s: there is no network %s", c.Machine, name)
	}
	var addr netip.Addr
	err := func() error {
		if !linkExists(ctx, ns, tap) {
			if err := run(ctx, "ip", "-n", ns, "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"); err != nil {
				return err
			}
		}
		// What it may send is settled before anybody hears it.
		var err error
		if addr, err = h.take(ctx, ns, n, tap, tap, c.MAC); err != nil {
			return err
		}
		return run(ctx, "ip", "-n", ns, "link", "set", tap, "master", bridge, "up")
	}()
	if err != nil {
		return Port{}, fmt.Errorf("join machine %s to network %s: %w", c.Machine, name, err)
	}
	return Port{Netns: netnsPath(ns), Tap: tap, Addr: addr}, nil
}

// Leave removes the machine's ports from every network. Absent ones are success.
func (h *Host) Leave(ctx context.Context, id estate.MachineID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	names, err := h.namespaces()
	if err != nil {
		return err
	}
	for _, ns := range names {
		for nic := range 8 {
			tap := tapName(id, nic)
			err := h.leave(ctx, ns, tap)
			if err == nil && linkExists(ctx, ns, tap) {
				run(ctx, "ip", "netns", "exec", ns, "nft", "delete", "chain", "netdev", "port", tap)
				err = run(ctx, "ip", "-n", ns, "link", "del", tap)
			}
			if err != nil {
				return fmt.Errorf("machine %s leaves %s: %w", id, ns, err)
			}
		}
	}
	return nil
}

// Remove takes the network away with its ports. An absent one is success.
func (h *Host) Remove(ctx context.Context, project, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.remove(ctx, h.namespace(project, name))
}

// RemoveUnused is Remove for a network that no machine is joined to.
func (h *Host) RemoveUnused(ctx context.Context, project, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ns := h.namespace(project, name)
	if _, err := os.Stat(netnsPath(ns)); err != nil {
		return nil
	}
	inside, err := ports(ctx, ns, bridge)
	if err != nil {
		return err
	}
	outside := []string{}
	if linkExists(ctx, "", hostBridge(ns)) {
		if outside, err = ports(ctx, "", hostBridge(ns)); err != nil {
			return err
		}
	}
	for _, p := range append(inside, outside...) {
		if p != innerEnd && p != outerEnd(ns) {
			return nil
		}
	}
	return h.remove(ctx, ns)
}

// Close removes every network of this estate from the host.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	names, err := h.namespaces()
	for _, ns := range names {
		err = errors.Join(err, h.remove(ctx, ns))
	}
	return err
}

func (h *Host) remove(ctx context.Context, ns string) error {
	h.stopServing(ns)
	delete(h.made, ns)
	for _, what := range []string{"leases", "hosts", "rules"} {
		os.Remove(h.file(ns, what))
	}
	for _, link := range []string{outerEnd(ns), hostBridge(ns)} {
		if !linkExists(ctx, "", link) {
			continue
		}
		if err := run(ctx, "ip", "link", "del", link); err != nil {
			return err
		}
	}
	run(ctx, "nft", "delete", "table", "ip", ns)
	if _, err := os.Stat(netnsPath(ns)); err != nil {
		return nil
	}
	return run(ctx, "ip", "netns", "del", ns)
}

// Address returns the address that DHCP gave to the MAC, or fault.NotFound.
func (h *Host) Address(project, name, mac string) (netip.Addr, error) {
	return h.leased(h.namespace(project, name), mac)
}

// dialLimit is how long Dial tries. A port that refuses is tried again: a
// guest's servers start after its desktop.
const dialLimit = 12 * time.Second

func dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Dial connects to a machine's TCP port from inside its network.
func (h *Host) Dial(ctx context.Context, project, name string, to netip.AddrPort) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The thread keeps the namespace, so it is never unlocked and dies
		// with the goroutine.
		runtime.LockOSThread()
		if err := enter(netnsPath(h.namespace(project, name))); err != nil {
			done <- result{nil, err}
			return
		}
		conn, err := dial(ctx, to)
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fault.Unavailable.Errorf("reach %s on network %s: %w", to, name, r.err)
	}
	return r.conn, nil
}

func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

func (h *Host) file(ns, what string) string { return filepath.Join(h.dir, ns+"."+what) }

// namespace returns the name in the kernel. It is short because nftables and
// veth names are made from it.
func (h *Host) namespace(project, name string) string {
	return h.prefix + "-" + project + "-" + name
}

// namespaces returns those of this estate.
func (h *Host) namespaces() ([]string, error) {
	all, err := os.ReadDir("/run/netns")
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, err
	}
	var ours []string
	for _, e := range all {
		if strings.HasPrefix(e.Name(), h.prefix+"-") {
			ours = append(ours, e.Name())
		}
	}
	slices.Sort(ours)
	return ours, nil
}

func netnsPath(ns string) string { return "/run/netns/" + ns }

// tapName fits the kernel's 15 bytes.
func tapName(id estate.MachineID, nic int) string { return "t" + short(string(id)) + strconv.Itoa(nic) }

func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:5])
}

func linkExists(ctx context.Context, ns, name string) bool {
	args := []string{"link", "show", "dev", name}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	return exec.CommandContext(ctx, "ip", args...).Run() == nil
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fault.Unavailable.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
