package network

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// What a network lets through is written as three tables of the kernel's packet
// filter: one at each port, before anything else sees a frame; one in the
// network's namespace, for what leaves it; one on the host, behind the way out.

// never are addresses that no rule leads to: this network, loopback, the links
// of our own ways out (RFC 6598), what clouds answer as metadata (169.254/16,
// 192.0.0/24, 168.63.129.16), multicast, broadcast and what is reserved.
const never = "0.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 168.63.129.16, 169.254.0.0/16, 192.0.0.0/24, 224.0.0.0-255.255.255.255"

// private are the addresses of private networks (RFC 1918, RFC 2544), which a
// rule must name to reach.
const private = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15"

// seat is an address that was given to a network card, and the device behind
// which it is.
type seat struct {
	mac    string
	addr   netip.Addr
	device string
}

// portRules returns the filter of a port, in front of everything: what comes
// out of the machines behind it is ARP and IPv4 from their own addresses to one
// neighbour or the way out, whole, and nothing else. Neither tagged frames nor
// IPv6 nor any other protocol is let in, and nobody serves DHCP.
func portRules(device string, behind []seat) string {
	var macs, pairs, triples []string
	for _, s := range behind {
		macs = append(macs, s.mac)
		pairs = append(pairs, fmt.Sprintf("%s . %s", s.mac, s.addr))
		triples = append(triples, fmt.Sprintf("%[1]s . %[1]s . %[2]s", s.mac, s.addr), fmt.Sprintf("%[1]s . %[1]s . 0.0.0.0", s.mac))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "add table netdev port\n")
	fmt.Fprintf(&b, "add chain netdev port %[1]s { type filter hook ingress device \"%[1]s\" priority -500; policy drop; }\n", device)
	fmt.Fprintf(&b, "flush chain netdev port %s\n", device)
	if len(behind) == 0 {
		return b.String()
	}
	rule := func(format string, args ...any) {
		fmt.Fprintf(&b, "add rule netdev port %s %s\n", device, fmt.Sprintf(format, args...))
	}
	rule("ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply } ether saddr . arp saddr ether . arp saddr ip { %s } accept", strings.Join(triples, ", "))
	rule("ether type ip ip version 4 ip hdrlength 5 ip frag-off & 0x3fff == 0 ether saddr { %s } ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept", strings.Join(macs, ", "))
	own := "ether type ip ip version 4 ip hdrlength 5 ip frag-off & 0x3fff == 0 ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ip daddr != { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0-255.255.255.255 } ether saddr . ip saddr { " + strings.Join(pairs, ", ") + " } "
	rule("%sip protocol tcp accept", own)
	rule("%sudp sport != 67 udp dport != 68 accept", own)
	rule("%sicmp type { echo-request, echo-reply, destination-unreachable, time-exceeded } accept", own)
	return b.String()
}

// edgeRules returns the filter at the edge of the network's namespace. Machines
// reach nothing of it but addresses and, where there are names, those; and they
// leave it by the ways of the policy. A connection is let through for as long
// as the policy that let it begin is the one there is.
func edgeRules(n Network) (string, error) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("add table inet edge\ndelete table inet edge\nadd table inet edge")
	line("add set inet edge never { type ipv4_addr; flags interval; elements = { %s } }", never)
	line("add set inet edge private { type ipv4_addr; flags interval; elements = { %s } }", private)
	line("add chain inet edge input { type filter hook input priority 0; policy drop; }")
	line("add chain inet edge forward { type filter hook forward priority 0; policy drop; }")
	line("add chain inet edge out")
	line("add rule inet edge input iifname lo accept")
	line("add rule inet edge input ct state established,related accept")
	line("add rule inet edge input iifname %s meta nfproto ipv4 udp sport 68 udp dport 67 accept", bridge)
	if n.Egress {
		line("add chain inet edge post { type nat hook postrouting priority 100; }\nadd rule inet edge post oifname up0 masquerade")
		line("add rule inet edge input iifname %s ip daddr %s meta l4proto { tcp, udp } th dport 53 accept", bridge, n.gateway())
	}
	line("add rule inet edge forward ct state invalid drop")
	line("add rule inet edge forward ct mark %d ct state established,related accept", n.mark())
	// A table that is full must not keep others from beginning a connection.
	line("add rule inet edge forward ct state new ct count over %d drop", mostConnections)
	line("add rule inet edge forward iifname %s oifname up0 meta nfproto ipv4 jump out", bridge)
	line("add rule inet edge out ip daddr @never drop")
	for i, w := range n.Ways {
		to, err := wayRule(i, w)
		if err != nil {
			return "", fault.Invalid.Errorf("way %d out of network %s: %w", i+1, n.Name, err)
		}
		if w.Domain != "" {
			line("add set inet edge %s { type ipv4_addr; flags timeout; timeout %s; }", domainSet(i), reachableFor)
		}
		ports, err := portMatches(w.Ports)
		if err != nil {
			return "", fault.Invalid.Errorf("way %d out of network %s: %w", i+1, n.Name, err)
		}
		for _, p := range ports {
			line("add rule inet edge out %s %s ct mark set %d accept", to, p, n.mark())
		}
	}
	return b.String(), nil
}

// mostConnections is how many connections a network may have open to the outside.
const mostConnections = 16384

// reachableFor is how long the address of a name is reached after it was last
// answered; answers are good for a fraction of that.
const reachableFor = "1h"

// wayRule matches where a way leads.
func wayRule(i int, w estate.Egress) (string, error) {
	if w.Domain != "" {
		return "ip daddr @" + domainSet(i) + " ip daddr != @private", nil
	}
	p, err := netip.ParsePrefix(w.CIDR)
	if err != nil || !p.Addr().Is4() {
		return "", fmt.Errorf("%q is not an IPv4 prefix", w.CIDR)
	}
	if withinPrivate(p) {
		return "ip daddr " + p.Masked().String(), nil
	}
	return "ip daddr " + p.Masked().String() + " ip daddr != @private", nil
}

// withinPrivate reports whether all of the prefix is in one private network.
func withinPrivate(p netip.Prefix) bool {
	for _, s := range strings.Split(private, ", ") {
		if q := netip.MustParsePrefix(s); q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// portMatches returns one match for each protocol of the ports.
func portMatches(ports []string) ([]string, error) {
	if len(ports) == 0 {
		return []string{"meta l4proto { tcp, udp }", "icmp type echo-request"}, nil
	}
	by := map[string][]string{}
	for _, text := range ports {
		r, err := estate.ParsePorts(text)
		if err != nil {
			return nil, err
		}
		by[r.Protocol] = append(by[r.Protocol], fmt.Sprintf("%d-%d", r.First, r.Last))
	}
	var all []string
	for _, protocol := range []string{"tcp", "udp"} {
		if len(by[protocol]) > 0 {
			all = append(all, fmt.Sprintf("%s dport { %s }", protocol, strings.Join(by[protocol], ", ")))
		}
	}
	return all, nil
}

func domainSet(i int) string { return fmt.Sprintf("name%d", i) }

// hostRules returns the filter on the host for the way out of a network: what
// comes in by the link may only be forwarded, from the link's own address, and
// nobody begins a connection into it.
func hostRules(ns, outer string, link netip.Prefix, inner netip.Addr) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("add table ip %[1]s\ndelete table ip %[1]s\nadd table ip %[1]s", ns)
	line("add chain ip %s post { type nat hook postrouting priority 100; }", ns)
	line("add chain ip %s own { type filter hook input priority 0; }", ns)
	line("add chain ip %s through { type filter hook forward priority 0; }", ns)
	line("add rule ip %s post ip saddr %s masquerade", ns, link.Masked())
	line("add rule ip %s own iifname %s drop", ns, outer)
	line("add rule ip %s through iifname %s ip saddr != %s drop", ns, outer, inner)
	line("add rule ip %s through iifname %s ip daddr { %s } drop", ns, outer, never)
	line("add rule ip %s through oifname %s ct state != { established, related } drop", ns, outer)
	return b.String()
}

// mark tells a policy from others in the kernel's table of connections; 0 is none.
func (n Network) mark() uint32 {
	h := sha256.New()
	for _, w := range n.Ways {
		fmt.Fprintf(h, "%q\n", []string{w.CIDR, w.Domain, strings.Join(w.Ports, " ")})
	}
	return binary.BigEndian.Uint32(h.Sum(nil)) | 1
}

// gateway is the host's address on the network.
func (n Network) gateway() netip.Addr { return n.Subnet.Addr().Next() }
