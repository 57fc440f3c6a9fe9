// Package network joins machines to networks: for each a namespace with a
// bridge, taps, and addresses by DHCP, apart from the host's own network.
package network

import (
	"bufio"
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
}

// Network is a network to make.
type Network struct {
	Project string
	Name    string
	Subnet  netip.Prefix // the host has its first address
	Egress  bool         // machines reach other networks through the host
}

// Port is where a machine's NIC plugs in.
type Port struct {
	Netns string // path of the namespace
	Tap   string
}

// bridge is the name of the bridge in every namespace.
const bridge = "br0"

// Open returns the networks kept under dir.
func Open(dir string) (*Host, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	sum := sha256.Sum256([]byte(dir))
	return &Host{dir: dir, prefix: "cs" + hex.EncodeToString(sum[:3])}, nil
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

// Ensure makes the network, or completes it. An equal one is left as it is.
func (h *Host) Ensure(ctx context.Context, n Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ns := h.namespace(n.Project, n.Name)
	gateway := netip.PrefixFrom(n.Subnet.Addr().Next(), n.Subnet.Bits())
	if _, err := os.Stat(netnsPath(ns)); err != nil {
		if err := run(ctx, "ip", "netns", "add", ns); err != nil {
			return fmt.Errorf("make network %s: %w", n.Name, err)
		}
	}
	if !linkExists(ctx, ns, bridge) {
		// The bridge keeps one MAC: without it the MAC follows the first tap.
		if err := run(ctx, "ip", "-n", ns, "link", "add", bridge, "address", estate.MACFor(estate.MachineID(ns), 0), "type", "bridge"); err != nil {
			return fmt.Errorf("make network %s: %w", n.Name, err)
		}
	}
	for _, args := range [][]string{
		{"-n", ns, "addr", "replace", gateway.String(), "dev", bridge},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "link", "set", bridge, "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return fmt.Errorf("make network %s: %w", n.Name, err)
		}
	}
	if n.Egress {
		if err := h.egress(ctx, ns, n); err != nil {
			return fmt.Errorf("give network %s a way out: %w", n.Name, err)
		}
	}
	if err := h.serveDHCP(ctx, ns, n); err != nil {
		return fmt.Errorf("give addresses on network %s: %w", n.Name, err)
	}
	return nil
}

// Join makes the port of a machine on a network that Ensure made. It may be
// called again.
func (h *Host) Join(ctx context.Context, project, name string, id estate.MachineID, nic int) (Port, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ns, tap := h.namespace(project, name), tapName(id, nic)
	if !linkExists(ctx, ns, tap) {
		if err := run(ctx, "ip", "-n", ns, "tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"); err != nil {
			return Port{}, fmt.Errorf("join machine %s to network %s: %w", id, name, err)
		}
	}
	if err := run(ctx, "ip", "-n", ns, "link", "set", tap, "master", bridge, "up"); err != nil {
		return Port{}, fmt.Errorf("join machine %s to network %s: %w", id, name, err)
	}
	return Port{Netns: netnsPath(ns), Tap: tap}, nil
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
			if tap := tapName(id, nic); linkExists(ctx, ns, tap) {
				if err := run(ctx, "ip", "-n", ns, "link", "del", tap); err != nil {
					return fmt.Errorf("machine %s leaves %s: %w", id, ns, err)
				}
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
	h.stopDHCP(ns)
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
	f, err := os.Open(h.file(h.namespace(project, name), "leases"))
	if err != nil {
		return netip.Addr{}, fault.NotFound.Errorf("no address was given to %s yet", mac)
	}
	defer f.Close()
	var found netip.Addr
	for s := bufio.NewScanner(f); s.Scan(); {
		// expiry, MAC, address, host name, client ID (dnsmasq's lease file)
		if w := strings.Fields(s.Text()); len(w) >= 3 && strings.EqualFold(w[1], mac) {
			if a, err := netip.ParseAddr(w[2]); err == nil {
				found = a
			}
		}
	}
	if !found.IsValid() {
		return found, fault.NotFound.Errorf("no address was given to %s yet", mac)
	}
	return found, nil
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

// egress joins the namespace to the host by a veth pair and translates what
// leaves it.
func (h *Host) egress(ctx context.Context, ns string, n Network) error {
	outer := "v" + short(ns)
	// A pair of addresses of its own for the way between namespace and host,
	// from the block for such links (RFC 6598).
	sum := sha256.Sum256([]byte(ns))
	up := netip.AddrFrom4([4]byte{100, 64 | sum[0]&63, sum[1], sum[2] &^ 3})
	hostSide, nsSide := up.Next(), up.Next().Next()
	if !linkExists(ctx, "", outer) {
		if err := run(ctx, "ip", "link", "add", outer, "type", "veth", "peer", "name", "up0", "netns", ns); err != nil {
			return err
		}
	}
	steps := [][]string{
		{"ip", "addr", "replace", hostSide.String() + "/30", "dev", outer},
		{"ip", "link", "set", outer, "up"},
		{"ip", "-n", ns, "addr", "replace", nsSide.String() + "/30", "dev", "up0"},
		{"ip", "-n", ns, "link", "set", "up0", "up"},
		{"ip", "-n", ns, "route", "replace", "default", "via", hostSide.String()},
		{"ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv4.ip_forward=1"},
		{"ip", "netns", "exec", ns, "nft", "add table ip out; flush table ip out; add chain ip out post { type nat hook postrouting priority 100; }; add rule ip out post oifname up0 masquerade"},
		{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
		{"nft", fmt.Sprintf("add table ip %[1]s; flush table ip %[1]s; add chain ip %[1]s post { type nat hook postrouting priority 100; }; add rule ip %[1]s post ip saddr %[2]s/30 masquerade; "+
			// The host itself is no way out: what comes in by the link may only be forwarded.
			"add chain ip %[1]s own { type filter hook input priority 0; }; add rule ip %[1]s own iifname %[3]s drop", ns, up, outer)},
	}
	for _, s := range steps {
		if err := run(ctx, s[0], s[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// serveDHCP starts the namespace's DHCP server unless it runs. Where there is a
// way out it answers for names too, from the host's own name servers.
func (h *Host) serveDHCP(ctx context.Context, ns string, n Network) error {
	if h.dhcpPID(ns) != 0 {
		return nil
	}
	first, last := span(n.Subnet)
	args := []string{"netns", "exec", ns, "dnsmasq",
		"--conf-file=/dev/null", "--keep-in-foreground", "--user=root", "--no-ping",
		"--bind-interfaces", "--interface=" + bridge, "--except-interface=lo",
		fmt.Sprintf("--dhcp-range=%s,%s,12h", first, last),
		"--dhcp-authoritative", "--dhcp-rapid-commit",
		"--dhcp-leasefile=" + h.file(ns, "leases"),
		"--pid-file=" + h.file(ns, "pid"),
	}
	if !n.Egress {
		args = append(args, "--dhcp-option=option:router", "--port=0") // no way out and no names
	}
	cmd := exec.Command("ip", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	for deadline := time.Now().Add(5 * time.Second); ; {
		if h.dhcpPID(ns) != 0 {
			return nil
		}
		select {
		case err := <-gone:
			return fault.Unavailable.Errorf("dnsmasq ended: %w", errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fault.Unavailable.Errorf("dnsmasq did not start within 5 s")
		}
	}
}

// dhcpPID returns the process that serves the namespace, or 0. The pid file
// alone proves nothing after a reboot, so the command line must name it too.
func (h *Host) dhcpPID(ns string) int {
	b, err := os.ReadFile(h.file(ns, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !bytes.Contains(line, []byte(h.file(ns, "pid"))) {
		return 0
	}
	return pid
}

func (h *Host) stopDHCP(ns string) {
	if pid := h.dhcpPID(ns); pid != 0 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	os.Remove(h.file(ns, "pid"))
	os.Remove(h.file(ns, "leases"))
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

// span returns the addresses that DHCP gives: all but the network, the host's
// first and the broadcast address.
func span(p netip.Prefix) (first, last netip.Addr) {
	base := p.Masked().Addr().As4()
	n := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	end := n | (1<<(32-p.Bits()) - 1) - 1
	at := func(v uint32) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	return at(n + 2), at(end)
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
