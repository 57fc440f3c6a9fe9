package network

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// lease is what the DHCP server remembers of an address that it gave.
type lease struct {
	mac    string
	addr   netip.Addr
	client string // the guest's name for itself, or "*"
}

// leases reads the server's own list.
func (h *Host) leases(ns string) []lease {
	f, err := os.Open(h.file(ns, "leases"))
	if err != nil {
		return nil // nothing was given yet
	}
	defer f.Close()
	var all []lease
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text()) // expiry, MAC, address, host name, client ID
		if len(w) != 5 {
			continue
		}
		if a, err := netip.ParseAddr(w[2]); err == nil {
			all = append(all, lease{strings.ToLower(w[1]), a, w[4]})
		}
	}
	return all
}

// leased returns the address that the server gave to the MAC, or fault.NotFound.
func (h *Host) leased(ns, mac string) (found netip.Addr, err error) {
	for _, l := range h.leases(ns) {
		if strings.EqualFold(l.mac, mac) {
			found = l.addr
		}
	}
	if !found.IsValid() {
		return found, fault.NotFound.Errorf("no address was given to %s yet", mac)
	}
	return found, nil
}

// takenBack bounds how long the server may take to forget a lease.
const takenBack = 5 * time.Second

// takeBack has the server forget who had the address before: it gives none to
// another card until its lease ends, hours after the machine has gone.
func (h *Host) takeBack(ctx context.Context, ns, mac string, addr netip.Addr) error {
	for end := time.Now().Add(takenBack); ; {
		had := false
		for _, l := range h.leases(ns) {
			if l.addr != addr || l.mac == mac {
				continue
			}
			had = true
			args := []string{"netns", "exec", ns, "dhcp_release", bridge, addr.String(), l.mac}
			if l.client != "*" {
				args = append(args, l.client)
			}
			if err := run(ctx, "ip", args...); err != nil {
				return err
			}
		}
		switch {
		case !had:
			return nil
		case time.Now().After(end):
			return fault.Unavailable.Errorf("the DHCP server does not take %s back from who had it; it is tried again", addr)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
