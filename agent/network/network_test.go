package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func openHere(t *testing.T) *Host {
	t.Helper()
	if err := Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	h, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(context.WithoutCancel(t.Context())) })
	return h
}

// card is the i-th machine's.
func card(i int) Card {
	id := estate.MachineID(fmt.Sprintf("0b9c3a52-0000-4000-8000-%012d", i))
	return Card{Machine: id, MAC: estate.MACFor(id, 0)}
}

var first = card(1)

// addressOf returns what the card was given.
func addressOf(t *testing.T, h *Host, c Card) netip.Addr {
	t.Helper()
	all, err := h.seats(h.namespace("p", "n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.mac == c.MAC {
			return s.addr
		}
	}
	t.Fatalf("%s has no address", c.MAC)
	return netip.Addr{}
}

var testNet = Network{Project: "p", Name: "n", Subnet: netip.MustParsePrefix("10.99.7.0/24")}

func TestEnsureTwiceIsOnce(t *testing.T) {
	h := openHere(t)
	for range 2 {
		if err := h.Ensure(t.Context(), testNet); err != nil {
			t.Fatal(err)
		}
	}
	first := h.serverPID(h.namespace("p", "n"))
	again, err := Open(h.dir) // as after a crash
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Ensure(t.Context(), testNet); err != nil {
		t.Fatal(err)
	}
	if got := again.serverPID(again.namespace("p", "n")); got != first || got == 0 {
		t.Errorf("DHCP server is process %d, then %d; want the same", first, got)
	}
}

func TestPortsComeAndGo(t *testing.T) {
	h := openHere(t)
	if err := h.Ensure(t.Context(), testNet); err != nil {
		t.Fatal(err)
	}
	var port Port
	for range 2 {
		var err error
		if port, err = h.Join(t.Context(), "p", "n", first); err != nil {
			t.Fatal(err)
		}
	}
	ns := h.namespace("p", "n")
	if !linkExists(t.Context(), ns, port.Tap) {
		t.Fatalf("no tap %s in %s", port.Tap, ns)
	}
	for range 2 {
		if err := h.Leave(t.Context(), first.Machine); err != nil {
			t.Fatal(err)
		}
	}
	if linkExists(t.Context(), ns, port.Tap) {
		t.Errorf("tap %s is still there", port.Tap)
	}
}

func TestANetworkGoesWithItsLastMachine(t *testing.T) {
	h := openHere(t)
	if err := h.Ensure(t.Context(), testNet); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Join(t.Context(), "p", "n", first); err != nil {
		t.Fatal(err)
	}
	ns := netnsPath(h.namespace("p", "n"))
	if err := h.RemoveUnused(t.Context(), "p", "n"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ns); err != nil {
		t.Fatalf("a network that is used was removed: %v", err)
	}
	if err := h.Leave(t.Context(), first.Machine); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.RemoveUnused(t.Context(), "p", "n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(ns); err == nil {
		t.Error("a network that nobody uses is still there")
	}
}

func TestDialReachesOnlyTheNetwork(t *testing.T) {
	h := openHere(t)
	if err := h.Ensure(t.Context(), testNet); err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("10.99.7.1:8099")
	greetInside(t, netnsPath(h.namespace("p", "n")), to)
	conn, err := h.Dial(t.Context(), "p", "n", to)
	if err != nil {
		t.Fatal(err)
	}
	if got := greeting(conn); got != "inside" {
		t.Fatalf("from inside: greeting %q, want %q", got, "inside")
	}
	// The same address from outside leads elsewhere, if anywhere.
	if conn, err := net.DialTimeout("tcp", to.String(), 200*time.Millisecond); err == nil {
		if got := greeting(conn); got == "inside" {
			t.Error("the network is reached from outside its namespace")
		}
	}
}

// greetInside answers every connection to the address in the namespace.
func greetInside(t *testing.T, netns string, at netip.AddrPort) {
	t.Helper()
	ready := make(chan error, 1)
	var l net.Listener
	go func() {
		runtime.LockOSThread()
		err := enter(netns)
		if err == nil {
			l, err = net.Listen("tcp", at.String())
		}
		ready <- err
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("inside"))
			c.Close()
		}
	}()
}

func greeting(c net.Conn) string {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 6)
	n, _ := io.ReadFull(c, b)
	return string(b[:n])
}

func TestCloseLeavesNothing(t *testing.T) {
	h := openHere(t)
	n := testNet
	n.Egress = true
	if err := h.Ensure(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	ns := h.namespace("p", "n")
	pid := h.serverPID(ns)
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netnsPath(ns)); err == nil {
		t.Errorf("namespace %s is still there", ns)
	}
	if out, _ := exec.Command("nft", "list", "tables").Output(); strings.Contains(string(out), ns) {
		t.Errorf("nftables still has %s:\n%s", ns, out)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return
		}
	}
	t.Errorf("DHCP server %d still runs", pid)
}

func TestSpanLeavesOutTheEnds(t *testing.T) {
	first, last := span(netip.MustParsePrefix("10.77.1.0/24"))
	if first.String() != "10.77.1.2" || last.String() != "10.77.1.254" {
		t.Errorf("span = %s to %s, want 10.77.1.2 to 10.77.1.254", first, last)
	}
}

// TestAnAddressIsTakenBackFromWhoHadIt gives every address of a small network to
// cards that are gone: the server, a real one, gives none of them to another card
// until it has forgotten that.
func TestAnAddressIsTakenBackFromWhoHadIt(t *testing.T) {
	h := openHere(t)
	n := Network{Project: "p", Name: "small", Subnet: netip.MustParsePrefix("10.91.0.0/29")}
	ns := h.namespace(n.Project, n.Name)
	var gone strings.Builder
	for i := 2; i <= 6; i++ {
		client := "*"
		if i%2 == 0 {
			client = fmt.Sprintf("ff:00:00:00:%02x:00:02:00:00:ab:11", i)
		}
		fmt.Fprintf(&gone, "%d 02:00:00:00:00:%02x 10.91.0.%d gone-%d %s\n", time.Now().Add(time.Hour).Unix(), i, i, i, client)
	}
	if err := os.WriteFile(h.file(ns, "leases"), []byte(gone.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Ensure(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if got := len(h.leases(ns)); got != 5 {
		t.Fatalf("the server knows %d leases of machines that are gone, want 5", got)
	}
	for i := range 5 {
		if _, err := h.Join(t.Context(), n.Project, n.Name, card(i)); err != nil {
			t.Fatal(err)
		}
		if got := len(h.leases(ns)); got != 4-i {
			t.Errorf("after %d new cards %d old leases are left, want %d", i+1, got, 4-i)
		}
	}
	if _, err := h.Join(t.Context(), n.Project, n.Name, card(5)); !errors.Is(err, fault.Unavailable) {
		t.Errorf("a sixth card got an address: %v", err)
	}
}
