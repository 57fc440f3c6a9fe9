package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// innerEnd is the end in a network's namespace of the pair that leads to its
// bridge on the host.
const innerEnd = "host0"

// Names on the host, within the kernel's 15 bytes.
func hostBridge(ns string) string { return "b" + short(ns) }
func outerEnd(ns string) string   { return "w" + short(ns) }

// Bridge gives the card an address on a network that Ensure made and returns a
// bridge in the host's own namespace that leads there, for hypervisors that plug
// machines in by themselves. The host has no address on it and routes nothing
// there: whoever is plugged in meets the network and nobody else. Those behind
// one bridge are told apart by their addresses alone, so one can pass for
// another. It goes with the network. It may be called again.
func (h *Host) Bridge(ctx context.Context, project, name string, c Card) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ns := h.namespace(project, name)
	n, ok := h.made[ns]
	if !ok {
		return "", fault.NotFound.Errorf("join machine %s: there is no network %s", c.Machine, name)
	}
	outside, outer := hostBridge(ns), outerEnd(ns)
	var steps [][]string
	if !linkExists(ctx, "", outside) {
		// One MAC for its life, as with the bridge inside.
		steps = append(steps, []string{"link", "add", outside, "address", estate.MACFor(estate.MachineID(ns), 1), "type", "bridge"})
	}
	if !linkExists(ctx, "", outer) {
		steps = append(steps, []string{"link", "add", outer, "type", "veth", "peer", "name", innerEnd, "netns", ns})
	}
	for _, args := range steps {
		if err := run(ctx, "ip", args...); err != nil {
			return "", fmt.Errorf("bridge network %s to the host: %w", name, err)
		}
	}
	// What they may send is settled before anybody hears it.
	if _, err := h.take(ctx, ns, n, c.port(), innerEnd, c.MAC); err != nil {
		return "", fmt.Errorf("bridge network %s to the host: %w", name, err)
	}
	for _, args := range [][]string{
		{"link", "set", outer, "master", outside, "up"},
		{"-n", ns, "link", "set", innerEnd, "master", bridge, "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return "", fmt.Errorf("bridge network %s to the host: %w", name, err)
		}
	}
	// Before it is up, or the kernel gives the host an address on it. A kernel
	// without IPv6 has no such file.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+outside+"/disable_ipv6", []byte("1"), 0)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = run(ctx, "ip", "link", "set", outside, "up")
	}
	if err != nil {
		return "", fmt.Errorf("bridge network %s to the host: %w", name, err)
	}
	return outside, nil
}

// ports returns the links that are plugged into the bridge.
func ports(ctx context.Context, ns, bridge string) ([]string, error) {
	args := []string{"-json", "link", "show", "master", bridge}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	out, err := exec.CommandContext(ctx, "ip", args...).Output()
	if err != nil {
		return nil, fault.Unavailable.Errorf("list what is plugged into %s: %w", bridge, err)
	}
	var links []struct {
		Name string `json:"ifname"`
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return nil, fault.Internal.Errorf("list what is plugged into %s: %w", bridge, err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	return names, nil
}
