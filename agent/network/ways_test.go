package network

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// world is a network beyond the host, of no special kind, where 11.99.7.1 answers by some ports
// and for two names.
func world(t *testing.T) (ns string) {
	t.Helper()
	ns = "world" + short(t.Name())
	host := "x" + short(t.Name())
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	do(t, "ip netns add "+ns)
	do(t, "ip link add "+host+" type veth peer name eth0 netns "+ns)
	do(t, "ip addr add 11.99.7.2/24 dev "+host)
	do(t, "ip link set "+host+" up")
	do(t, "ip -n "+ns+" addr add 11.99.7.1/24 dev eth0")
	do(t, "ip -n "+ns+" link set lo up")
	do(t, "ip -n "+ns+" link set eth0 up")
	for _, at := range []string{"11.99.7.1:443", "11.99.7.1:25"} {
		greetInside(t, netnsPath(ns), netip.MustParseAddrPort(at))
	}
	names := exec.Command("ip", "netns", "exec", ns, "dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root",
		"--bind-interfaces", "--listen-address=11.99.7.1", "--pid-file=", "--address=/good.example/11.99.7.1", "--address=/bad.example/11.99.7.1", "--address=/inward.good.example/10.1.1.1")
	if err := names.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { names.Process.Kill(); names.Wait() })
	return ns
}

func do(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// from runs a command in a machine's namespace.
func from(ns, command string) string {
	out, _ := exec.Command("ip", "netns", "exec", ns, "timeout", "3", "bash", "-c", command).Output()
	return string(out)
}

// hears reports whether the machine hears who answers at the port.
func hears(ns, addr, port string) bool {
	return from(ns, "exec 3<>/dev/tcp/"+addr+"/"+port+" && head -c 6 <&3") == "inside"
}

// asks returns what the machine is told for a name by the network's own server.
func asks(ns, name string) string {
	answer := strings.TrimSpace(from(ns, "dig +short +tries=1 +time=2 @10.99.7.1 "+name))
	if strings.HasPrefix(answer, ";") {
		return "" // dig tells what went wrong
	}
	return answer
}

func ready(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestMachinesGoWhereTheirContextLetsThem(t *testing.T) {
	if _, err := exec.LookPath("dig"); err != nil {
		t.Skip("dig is not installed")
	}
	h := openHere(t)
	ctx := context.WithoutCancel(t.Context())
	n := testNet
	n.Egress, n.Ways = true, []estate.Egress{{CIDR: "0.0.0.0/0", Ports: []string{"443"}}}
	// The network's server asks the world's for names.
	etc := filepath.Join("/etc/netns", h.namespace("p", "n"))
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(etc) })
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver 11.99.7.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	world(t)
	if err := h.Ensure(ctx, n); err != nil {
		t.Fatal(err)
	}
	bridge, err := h.Bridge(ctx, "p", "n", first)
	if err != nil {
		t.Fatal(err)
	}
	m := plug(t, h, bridge)
	do(t, "ip -n "+m+" route add default via 10.99.7.1")

	ready(t, "an allowed port", func() bool { return hears(m, "11.99.7.1", "443") })
	if hears(m, "11.99.7.1", "25") {
		t.Error("a port that no way names is reached")
	}
	ready(t, "names, since every address may be reached", func() bool { return asks(m, "bad.example") == "11.99.7.1" })
	if got := asks(m, "inward.good.example"); got != "" {
		t.Errorf("a name that leads into a private network is answered: %s", got)
	}

	// Only a name: others are not answered, and the address is reached once it is asked for.
	n.Ways = []estate.Egress{{Domain: "good.example", Ports: []string{"443"}}}
	if err := h.Change(ctx, n); err != nil {
		t.Fatal(err)
	}
	if hears(m, "11.99.7.1", "443") {
		t.Error("an address is reached before its name was asked for")
	}
	if got := asks(m, "bad.example"); got != "" {
		t.Errorf("a name that no way names is answered: %s", got)
	}
	ready(t, "a name of the policy", func() bool { return asks(m, "www.good.example") == "11.99.7.1" })
	ready(t, "the address of that name", func() bool { return hears(m, "11.99.7.1", "443") })
	if hears(m, "11.99.7.1", "25") {
		t.Error("a port that the name's way does not name is reached")
	}

	// A policy that is taken back takes everything with it.
	n.Ways = nil
	if err := h.Change(ctx, n); err != nil {
		t.Fatal(err)
	}
	if hears(m, "11.99.7.1", "443") || asks(m, "www.good.example") != "" {
		t.Error("without ways something is reached, or a name answered")
	}
}

// TestAddressesAreKept gives a card the same address again, and no two the same.
func TestAddressesAreKept(t *testing.T) {
	h := openHere(t)
	small := testNet
	small.Subnet = netip.MustParsePrefix("10.99.7.0/28") // 13 machines
	if err := h.Ensure(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]int{}
	for i := range 13 {
		p, err := h.Join(t.Context(), "p", "n", card(i))
		if err != nil {
			t.Fatal(err)
		}
		if was, taken := seen[p.Addr]; taken {
			t.Errorf("machines %d and %d have %s", was, i, p.Addr)
		}
		seen[p.Addr] = i
	}
	if _, err := h.Join(t.Context(), "p", "n", card(13)); err == nil {
		t.Error("a network of 13 addresses gave a 14th")
	}
	again, err := Open(h.dir) // as after a crash
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Ensure(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	p, err := again.Join(t.Context(), "p", "n", card(5))
	if err != nil || seen[p.Addr] != 5 {
		t.Errorf("machine 5 now has %s, %v; that was machine %d's", p.Addr, err, seen[p.Addr])
	}
}
