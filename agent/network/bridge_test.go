package network

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// plug makes a machine of another's making: a namespace on the host's bridge.
func plug(t *testing.T, h *Host, bridge string) (ns string) {
	t.Helper()
	ns = "guest" + short(t.Name())
	address := addressOf(t, h, first).String() + "/24"
	steps := [][]string{
		{"netns", "add", ns},
		{"link", "add", "g" + short(t.Name()), "type", "veth", "peer", "name", "eth0", "address", first.MAC, "netns", ns},
		{"link", "set", "g" + short(t.Name()), "master", bridge, "up"},
		{"-n", ns, "addr", "add", address, "dev", "eth0"},
		{"-n", ns, "link", "set", "eth0", "up"},
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	for _, s := range steps {
		if out, err := exec.Command("ip", s...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(s, " "), err, out)
		}
	}
	return ns
}

func TestABridgeLeadsToTheNetworkAndNotToTheHost(t *testing.T) {
	h := openHere(t)
	if err := h.Ensure(t.Context(), testNet); err != nil {
		t.Fatal(err)
	}
	var bridge string
	for range 2 {
		var err error
		if bridge, err = h.Bridge(t.Context(), "p", "n", first); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("ip", "-o", "addr", "show", "dev", bridge).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("the host has an address on it: %s, %v", out, err)
	}
	ns := plug(t, h, bridge)
	to := netip.AddrPortFrom(addressOf(t, h, first), 8098)
	greetInside(t, netnsPath(ns), to)
	conn, err := h.Dial(t.Context(), "p", "n", to)
	if err != nil {
		t.Fatal(err)
	}
	if got := greeting(conn); got != "inside" {
		t.Errorf("a machine on the bridge answers %q, want %q", got, "inside")
	}
}

func TestABridgeGoesWithItsLastMachine(t *testing.T) {
	h := openHere(t)
	if err := h.Ensure(t.Context(), testNet); err != nil {
		t.Fatal(err)
	}
	bridge, err := h.Bridge(t.Context(), "p", "n", first)
	if err != nil {
		t.Fatal(err)
	}
	ns := plug(t, h, bridge)
	if err := h.RemoveUnused(t.Context(), "p", "n"); err != nil {
		t.Fatal(err)
	}
	if !linkExists(t.Context(), "", bridge) {
		t.Fatal("a bridge with a machine on it was removed")
	}
	if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The kernel removes what the machine was plugged in by in its own time.
	for end := time.Now().Add(10 * time.Second); linkExists(t.Context(), "", "g"+short(t.Name())); {
		if time.Now().After(end) {
			t.Fatal("the machine's plug is still there")
		}
	}
	for range 2 {
		if err := h.RemoveUnused(t.Context(), "p", "n"); err != nil {
			t.Fatal(err)
		}
	}
	if linkExists(t.Context(), "", bridge) || linkExists(t.Context(), "", outerEnd(h.namespace("p", "n"))) {
		t.Error("a bridge that nobody uses is still there")
	}
}
