package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// take gives the card an address and a place behind the device, and has the
// device let through what comes from there. Who had one keeps it.
func (h *Host) take(ctx context.Context, ns string, n Network, port, device, mac string) (netip.Addr, error) {
	all, err := h.seats(ns)
	if err != nil {
		return netip.Addr{}, err
	}
	mac = strings.ToLower(mac)
	mine := taken{port: port, seat: seat{mac: mac, device: device}}
	if i := slices.IndexFunc(all, func(t taken) bool { return t.mac == mac || t.port == port }); i >= 0 && all[i].mac == mac && n.Subnet.Contains(all[i].addr) {
		mine.addr = all[i].addr
	}
	all = slices.DeleteFunc(all, func(t taken) bool { return t.mac == mac || t.port == port })
	if !mine.addr.IsValid() {
		if mine.addr, err = h.choose(ns, n, mac, all); err != nil {
			return netip.Addr{}, err
		}
	}
	if err := h.takeBack(ctx, ns, mac, mine.addr); err != nil {
		return netip.Addr{}, err
	}
	if err := h.keepSeats(ns, append(all, mine)); err != nil {
		return netip.Addr{}, err
	}
	return mine.addr, h.filter(ctx, ns, device)
}

// taken is a seat and the port of a machine that has it.
type taken struct {
	seat
	port string
}

// choose returns a free address. It follows from the card's, so that a machine
// that comes from another host most often finds its own again; a lease from
// before addresses were kept stays good.
func (h *Host) choose(ns string, n Network, mac string, all []taken) (netip.Addr, error) {
	used := map[netip.Addr]bool{}
	for _, t := range all {
		used[t.addr] = true
	}
	if a, err := h.leased(ns, mac); err == nil && n.Subnet.Contains(a) && !used[a] {
		return a, nil
	}
	first, last := span(n.Subnet)
	count := number(last) - number(first) + 1
	sum := fnv.New32a()
	sum.Write([]byte(mac))
	for i := range count {
		if a := address(number(first) + (sum.Sum32()%count+i)%count); !used[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fault.Unavailable.Errorf("network %s has no address left: all %d are taken", n.Name, count)
}

// leave gives up what the port had; what is behind the same device stays.
func (h *Host) leave(ctx context.Context, ns, port string) error {
	all, err := h.seats(ns)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(t taken) bool { return t.port == port })
	if i < 0 {
		return nil
	}
	device := all[i].device
	if err := h.keepSeats(ns, slices.Delete(all, i, i+1)); err != nil {
		return err
	}
	if device != innerEnd || !linkExists(ctx, ns, innerEnd) {
		return nil
	}
	return h.filter(ctx, ns, device)
}

// filter has the device let through what comes from the seats behind it.
func (h *Host) filter(ctx context.Context, ns, device string) error {
	all, err := h.seats(ns)
	if err != nil {
		return err
	}
	var behind []seat
	for _, t := range all {
		if t.device == device {
			behind = append(behind, t.seat)
		}
	}
	return load(ctx, ns, portRules(device, behind))
}

// seats reads what was given. The file is the DHCP server's list of hosts, with
// the port and its device in remarks: tags would be the place for them, but
// dnsmasq 2.90 frees them wrongly when it reads the list anew, and dies.
func (h *Host) seats(ns string) ([]taken, error) {
	b, err := os.ReadFile(h.file(ns, "hosts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []taken
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line) // MAC,ADDRESS # PORT DEVICE
		if len(w) != 4 {
			continue
		}
		mac, addr, _ := strings.Cut(w[0], ",")
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return nil, fault.Internal.Errorf("read addresses given: %w", err)
		}
		all = append(all, taken{seat{mac, a, w[3]}, w[2]})
	}
	return all, nil
}

func (h *Host) keepSeats(ns string, all []taken) error {
	var b bytes.Buffer
	for _, t := range all {
		fmt.Fprintf(&b, "%s,%s # %s %s\n", t.mac, t.addr, t.port, t.device)
	}
	if err := atomicfile.Write(h.file(ns, "hosts"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("keep addresses given: %w", err)
	}
	if pid := h.serverPID(ns); pid != 0 {
		syscall.Kill(pid, syscall.SIGHUP) // it reads the list anew
	}
	return nil
}

// load puts rules into the namespace's packet filter, or the host's where ns is
// empty: all of them or none.
func load(ctx context.Context, ns, rules string) error {
	args := []string{"nft", "-f", "-"}
	if ns != "" {
		args = append([]string{"ip", "netns", "exec", ns}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fault.Unavailable.Errorf("load packet filter: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(v uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// Card is a network card of a machine.
type Card struct {
	Machine estate.MachineID
	NIC     int
	MAC     string
}

func (c Card) port() string { return tapName(c.Machine, c.NIC) }
