package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// ensureEdge loads the rules at the edge of the namespace, unless they are there.
func (h *Host) ensureEdge(ctx context.Context, ns string, n Network) error {
	rules, err := edgeRules(n)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(rules))
	mark := []byte(hex.EncodeToString(sum[:]))
	if old, err := os.ReadFile(h.file(ns, "rules")); err == nil && string(old) == string(mark) {
		return nil
	}
	if err := load(ctx, ns, rules); err != nil {
		return err
	}
	return atomicfile.Write(h.file(ns, "rules"), mark, 0o600)
}

// ensureWayOut joins the namespace to the host by a pair of links and
// translates what leaves it, or takes that away.
func (h *Host) ensureWayOut(ctx context.Context, ns string, n Network) error {
	outer := wayOut(ns)
	there := linkExists(ctx, "", outer)
	if !n.Egress {
		if !there {
			return nil
		}
		run(ctx, "nft", "delete", "table", "ip", ns)
		return run(ctx, "ip", "link", "del", outer)
	}
	// A pair of addresses of its own for the way between namespace and host,
	// from the block for such links (RFC 6598).
	sum := sha256.Sum256([]byte(ns))
	link := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 | sum[0]&63, sum[1], sum[2] &^ 3}), 30)
	hostSide := link.Addr().Next()
	nsSide := hostSide.Next()
	if !there {
		if err := run(ctx, "ip", "link", "add", outer, "type", "veth", "peer", "name", "up0", "netns", ns); err != nil {
			return err
		}
	}
	// The rules come before the way.
	if err := load(ctx, "", hostRules(ns, outer, link, nsSide)); err != nil {
		return err
	}
	for _, s := range [][]string{
		{"ip", "addr", "replace", hostSide.String() + "/30", "dev", outer},
		{"ip", "link", "set", outer, "up"},
		{"ip", "-n", ns, "addr", "replace", nsSide.String() + "/30", "dev", "up0"},
		{"ip", "-n", ns, "link", "set", "up0", "up"},
		{"ip", "-n", ns, "route", "replace", "default", "via", hostSide.String()},
		{"ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv4.ip_forward=1"},
		{"sysctl", "-qw", "net.ipv4.ip_forward=1"},
	} {
		if err := run(ctx, s[0], s[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// wayOut is the host's end of the way out of a network.
func wayOut(ns string) string { return "v" + short(ns) }

// serverArgs are those of the server that gives the network's addresses and, as
// far as its ways lead, answers for names.
func (h *Host) serverArgs(ns string, n Network) []string {
	args := []string{"dnsmasq",
		"--conf-file=/dev/null", "--keep-in-foreground", "--user=root", "--no-ping",
		"--bind-interfaces", "--interface=" + bridge, "--except-interface=lo",
		// Who was given no address beforehand gets none.
		fmt.Sprintf("--dhcp-range=%s,static,%s,12h", n.Subnet.Addr(), net.IP(net.CIDRMask(n.Subnet.Bits(), 32))),
		"--dhcp-hostsfile=" + h.file(ns, "hosts"),
		"--dhcp-authoritative", "--dhcp-rapid-commit",
		"--dhcp-leasefile=" + h.file(ns, "leases"),
		"--pid-file=" + h.file(ns, "pid"),
	}
	if !n.Egress {
		return append(args, "--dhcp-option=option:router", "--port=0") // no way out and no names
	}
	return append(args, nameArgs(n, nameServers(ns))...)
}

// nameServers are those that a process in the namespace would ask: the host's.
func nameServers(ns string) []string {
	b, err := os.ReadFile("/etc/netns/" + ns + "/resolv.conf") // as 'ip netns exec' has it
	if err != nil {
		b, _ = os.ReadFile("/etc/resolv.conf")
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		if w := strings.Fields(line); len(w) == 2 && w[0] == "nameserver" {
			if a, err := netip.ParseAddr(w[1]); err == nil && a.Is4() {
				all = append(all, a.String())
			}
		}
	}
	return all
}

// nameArgs says which names are answered, by the host's own name servers: every
// one where a way leads everywhere, else those that ways name. An answer that
// lies in a private network is withheld: a name must not lead where no way does.
func nameArgs(n Network, servers []string) []string {
	args := []string{"--no-hosts", "--no-resolv", "--stop-dns-rebind", "--max-ttl=300", "--max-cache-ttl=300"}
	all, some := false, false
	for i, w := range n.Ways {
		if p, err := netip.ParsePrefix(w.CIDR); err == nil && p.Bits() == 0 {
			all = true
		}
		if w.Domain != "" {
			some = true
			args = append(args, fmt.Sprintf("--nftset=/%s/4#inet#edge#%s", w.Domain, domainSet(i)))
			for _, s := range servers {
				args = append(args, fmt.Sprintf("--server=/%s/%s", w.Domain, s))
			}
		}
	}
	switch {
	case all:
		for _, s := range servers {
			args = append(args, "--server="+s)
		}
	case !some:
		args = append(args, "--port=0")
	}
	return args
}

// serve has the namespace's server run as n says; one that does is left alone.
func (h *Host) serve(ctx context.Context, ns string, n Network) error {
	args := h.serverArgs(ns, n)
	if h.serverRuns(ns, args) {
		return nil
	}
	h.stopServing(ns)
	if err := touch(h.file(ns, "hosts")); err != nil {
		return err
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	for deadline := time.Now().Add(5 * time.Second); ; {
		if h.serverPID(ns) != 0 {
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

// touch makes the file when there is none.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// serverPID returns the process that serves the namespace, or 0. The pid file
// alone proves nothing after a reboot, so the command line must name it too.
func (h *Host) serverPID(ns string) int {
	b, err := os.ReadFile(h.file(ns, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || !strings.Contains(commandLine(pid), h.file(ns, "pid")) {
		return 0
	}
	return pid
}

// serverRuns reports whether the server runs with these arguments.
func (h *Host) serverRuns(ns string, args []string) bool {
	pid := h.serverPID(ns)
	return pid != 0 && commandLine(pid) == strings.Join(args, "\x00")+"\x00"
}

func commandLine(pid int) string {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(line)
}

// stopServing ends the server and waits until its sockets are free.
func (h *Host) stopServing(ns string) {
	pid := h.serverPID(ns)
	if pid != 0 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(5 * time.Second); h.serverPID(ns) != 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	os.Remove(h.file(ns, "pid"))
}

// span returns the addresses that are given: all but the network, the host's
// first and the broadcast address.
func span(p netip.Prefix) (first, last netip.Addr) {
	n := number(p.Masked().Addr())
	return address(n + 2), address(n | (1<<(32-p.Bits()) - 1) - 1)
}
