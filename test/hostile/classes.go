package hostile

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Neighbour is a machine, or what answers for the host, on a network.
type Neighbour struct {
	MAC  net.HardwareAddr
	Addr netip.Addr
}

// Scene is what a hostile machine knows of its surroundings: everything.
type Scene struct {
	Me, Sibling, Gateway Neighbour  // on its own network
	Other, OtherGateway  netip.Addr // on the other context's
	OwnLink, OtherLink   netip.Addr // of the ways out: the host's end, the other network's end
	Host                 netip.Addr // the host's own address towards the world
}

// Class is one way to send what must not arrive.
type Class struct {
	Name  string
	Frame func(i int) []byte // the i-th frame
}

// Classes returns every class for the scene.
func Classes(s Scene) []Class {
	var all []Class
	for _, some := range [][]Class{s.spoofed(), s.arps(), s.tagged(), s.sixes(), s.servers(), s.fragments(), s.tunnels(), s.metadata(), s.host(), s.other(), s.shouted(), s.outwards()} {
		all = append(all, some...)
	}
	return all
}

var magic = []byte(Magic)

// udpFrom is a datagram with some addresses of the sender's choice.
func (s Scene) udpFrom(to, from net.HardwareAddr, p packet) []byte {
	p.proto = protoUDP
	return ether(to, from, typeIPv4, p.with(udp(4000, 9, magic)))
}

// routed is a datagram of the machine's own that goes by the gateway.
func (s Scene) routed(to netip.Addr, proto byte, payload []byte) []byte {
	return ether(s.Gateway.MAC, s.Me.MAC, typeIPv4, packet{from: s.Me.Addr, to: to, proto: proto}.with(payload))
}

func always(name string, frame []byte) Class {
	return Class{name, func(int) []byte { return frame }}
}

func (s Scene) spoofed() []Class {
	me, sib := s.Me, s.Sibling
	mac := func(from net.HardwareAddr) []byte {
		return s.udpFrom(sib.MAC, from, packet{from: me.Addr, to: sib.Addr})
	}
	addr := func(from netip.Addr) []byte { return s.udpFrom(sib.MAC, me.MAC, packet{from: from, to: sib.Addr}) }
	return []Class{
		always("MAC of nobody", mac(net.HardwareAddr{2, 0, 0, 0, 0, 9})),
		always("MAC of a sibling", mac(sib.MAC)),
		always("MAC of the gateway", mac(s.Gateway.MAC)),
		always("MAC of a group", mac(net.HardwareAddr{3, 0, 0, 0, 0, 9})),
		always("MAC of zeros", mac(make(net.HardwareAddr, 6))),
		{"MAC flood", func(i int) []byte {
			return mac(net.HardwareAddr{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
		}},
		always("address of a sibling", addr(sib.Addr)),
		always("address of the gateway", addr(s.Gateway.Addr)),
		always("address of the other context", addr(s.Other)),
		always("address of broadcast", addr(netip.MustParseAddr("255.255.255.255"))),
		always("address of loopback", addr(netip.MustParseAddr("127.0.0.1"))),
		always("no address", addr(netip.MustParseAddr("0.0.0.0"))),
		{"address flood", func(i int) []byte { return addr(netip.AddrFrom4([4]byte{45, byte(i >> 16), byte(i >> 8), byte(i)})) }},
	}
}

func (s Scene) arps() []Class {
	me, sib, gw := s.Me, s.Sibling, s.Gateway
	wide := arp(2, me.MAC, gw.Addr, sib.MAC, sib.Addr)
	wide[4] = 8
	return []Class{
		always("ARP: I am the gateway", ether(sib.MAC, me.MAC, typeARP, arp(2, me.MAC, gw.Addr, sib.MAC, sib.Addr))),
		always("ARP: I am the gateway, to all", ether(broadcast, me.MAC, typeARP, arp(2, me.MAC, gw.Addr, broadcast, gw.Addr))),
		always("ARP request of another", ether(broadcast, me.MAC, typeARP, arp(1, me.MAC, sib.Addr, make(net.HardwareAddr, 6), gw.Addr))),
		always("ARP with another MAC inside", ether(sib.MAC, me.MAC, typeARP, arp(2, gw.MAC, me.Addr, sib.MAC, sib.Addr))),
		always("ARP of odd lengths", ether(sib.MAC, me.MAC, typeARP, wide)),
		always("ARP of an odd kind", ether(sib.MAC, me.MAC, typeARP, arp(9, me.MAC, me.Addr, sib.MAC, sib.Addr))),
		always("reverse ARP", ether(broadcast, me.MAC, typeRARP, arp(3, me.MAC, me.Addr, me.MAC, me.Addr))),
	}
}

func (s Scene) tagged() []Class {
	inner := packet{from: s.Me.Addr, to: s.Sibling.Addr, proto: protoUDP}.with(udp(4000, 9, magic))
	tag := func(id uint16, typ uint16, payload []byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, id)
		return append(binary.BigEndian.AppendUint16(b, typ), payload...)
	}
	return []Class{
		always("VLAN", ether(s.Sibling.MAC, s.Me.MAC, typeVLAN, tag(2, typeIPv4, inner))),
		always("VLAN of priority alone", ether(s.Sibling.MAC, s.Me.MAC, typeVLAN, tag(7<<13, typeIPv4, inner))),
		always("VLAN in VLAN", ether(s.Sibling.MAC, s.Me.MAC, typeVLAN, tag(1, typeVLAN, tag(2, typeIPv4, inner)))),
		always("provider's VLAN", ether(s.Sibling.MAC, s.Me.MAC, typeQinQ, tag(1, typeVLAN, tag(2, typeIPv4, inner)))),
		always("unknown protocol", ether(s.Sibling.MAC, s.Me.MAC, 0x88b5, magic)),
		always("bridge protocol", ether(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, s.Me.MAC, 38, append([]byte{0x42, 0x42, 3}, magic...))),
		always("link layer discovery", ether(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 14}, s.Me.MAC, 0x88cc, magic)),
		{"garbage", func(i int) []byte {
			return ether(s.Sibling.MAC, s.Me.MAC, uint16(i*2654435761>>16), append([]byte{byte(i), byte(i >> 8)}, magic...))
		}},
	}
}

func (s Scene) sixes() []Class {
	all := netip.MustParseAddr("ff02::1")
	group := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	six := func(name string, next byte, payload []byte) Class {
		return always(name, ether(group, s.Me.MAC, typeIPv6, ipv6(next, all, append(payload, magic...))))
	}
	return []Class{
		six("IPv6 router advertisement", 58, []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}),
		six("IPv6 neighbour advertisement", 58, append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, make([]byte, 16)...)),
		six("IPv6 redirect", 58, append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 32)...)),
		six("IPv6 multicast listener", 58, []byte{143, 0, 0, 0, 0, 0, 0, 1}),
		six("IPv6 datagram", protoUDP, udp(4000, 9, magic)),
		six("IPv6 rogue DHCP", protoUDP, udp(547, 546, magic)),
		six("IPv6 with extension headers", 0, append([]byte{43, 0, 1, 4, 0, 0, 0, 0, 59, 0, 0, 0, 0, 0, 0, 0}, magic...)),
		six("IPv6 fragment", 44, []byte{17, 0, 0, 1, 0, 0, 0, 7}),
	}
}

func (s Scene) servers() []Class {
	offer := make([]byte, 240)
	offer[0], offer[1], offer[2] = 2, 1, 6
	copy(offer[236:], []byte{99, 130, 83, 99})
	offer = append(append(offer, 53, 1, 2, 255), magic...)
	dhcp := func(to Neighbour) []byte {
		return ether(to.MAC, s.Me.MAC, typeIPv4, packet{from: s.Me.Addr, to: to.Addr, proto: protoUDP}.with(udp(67, 68, offer)))
	}
	toSibling := func(payload []byte) []byte {
		return ether(s.Sibling.MAC, s.Me.MAC, typeIPv4, packet{from: s.Me.Addr, to: s.Sibling.Addr, proto: protoICMP}.with(payload))
	}
	return []Class{
		always("rogue DHCP to one", dhcp(s.Sibling)),
		always("rogue DHCP to all", dhcp(Neighbour{broadcast, netip.MustParseAddr("255.255.255.255")})),
		always("ICMP redirect", toSibling(icmp(5, 1, magic))),
		always("ICMP router advertisement", toSibling(icmp(9, 0, magic))),
	}
}

func (s Scene) fragments() []Class {
	f := func(name string, frag uint16, proto byte, payload []byte) Class {
		p := packet{from: s.Me.Addr, to: s.Sibling.Addr, proto: proto, frag: frag}
		return always(name, ether(s.Sibling.MAC, s.Me.MAC, typeIPv4, p.with(payload)))
	}
	p := packet{from: s.Me.Addr, to: s.Sibling.Addr, proto: protoUDP, options: []byte{131, 7, 4, 10, 0, 0, 1, 0}}
	return []Class{
		f("first fragment", 0x2000, protoUDP, udp(4000, 9, magic)),
		f("later fragment", 0x0003, protoUDP, magic),
		f("overlapping fragment", 0x2001, protoTCP, magic),
		always("source route", ether(s.Sibling.MAC, s.Me.MAC, typeIPv4, p.with(udp(4000, 9, magic)))),
	}
}

func (s Scene) tunnels() []Class {
	inside := packet{from: s.Other, to: s.Sibling.Addr, proto: protoUDP}.with(udp(4000, 9, magic))
	t := func(name string, proto byte, payload []byte) Class {
		p := packet{from: s.Me.Addr, to: s.Sibling.Addr, proto: proto}
		return always(name, ether(s.Sibling.MAC, s.Me.MAC, typeIPv4, p.with(payload)))
	}
	vxlan := udp(4000, 4789, append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, ether(s.Sibling.MAC, s.Me.MAC, typeIPv4, inside)...))
	return []Class{
		t("GRE", protoGRE, append([]byte{0, 0, 8, 0}, inside...)),
		t("IP in IP", protoIPIP, inside),
		t("IPv6 in IPv4", proto6in4, ipv6(59, netip.MustParseAddr("ff02::1"), magic)),
		t("ESP", protoESP, append(make([]byte, 8), magic...)),
		t("SCTP", protoSCTP, append(make([]byte, 12), magic...)),
		t("IGMP", protoIGMP, append([]byte{0x16, 0, 0, 0, 224, 0, 0, 9}, magic...)),
		always("VXLAN to the other context", s.routed(s.Other, protoUDP, vxlan)),
		always("GRE to the other context", s.routed(s.Other, protoGRE, append([]byte{0, 0, 8, 0}, inside...))),
	}
}

func (s Scene) metadata() []Class {
	to := func(name, addr string) Class {
		a := netip.MustParseAddr(addr)
		return always(name, s.routed(a, protoTCP, syn(s.Me.Addr, a, 4000, 80, magic)))
	}
	return []Class{
		to("metadata", "169.254.169.254"), to("metadata of containers", "169.254.170.2"), to("metadata of another cloud", "168.63.129.16"),
		to("metadata of a third cloud", "100.100.100.200"), to("metadata of a fourth cloud", "192.0.0.192"),
	}
}

func (s Scene) host() []Class {
	return []Class{
		{"host: datagrams to its ports", func(i int) []byte { return s.routed(s.Gateway.Addr, protoUDP, udp(4000, uint16(1000+i%60000), magic)) }},
		{"host: connections to its ports", func(i int) []byte {
			port := uint16(1 + i%65535)
			if port == 53 { // names are answered there, by TCP too
				port = 22
			}
			return s.routed(s.Gateway.Addr, protoTCP, syn(s.Me.Addr, s.Gateway.Addr, 4000, port, magic))
		}},
		always("host: ping", s.routed(s.Gateway.Addr, protoICMP, icmp(8, 0, magic))),
		always("host: its end of the way out", s.routed(s.OwnLink, protoTCP, syn(s.Me.Addr, s.OwnLink, 4000, 22, magic))),
		always("host: its own address", s.routed(s.Host, protoTCP, syn(s.Me.Addr, s.Host, 4000, 22, magic))),
		always("host: ping its own address", s.routed(s.Host, protoICMP, icmp(8, 0, magic))),
		always("host: its loopback", s.routed(netip.MustParseAddr("127.0.0.1"), protoUDP, udp(4000, 9, magic))),
	}
}

func (s Scene) other() []Class {
	return []Class{
		always("other context: datagram", s.routed(s.Other, protoUDP, udp(4000, 9, magic))),
		always("other context: connection", s.routed(s.Other, protoTCP, syn(s.Me.Addr, s.Other, 4000, 22, magic))),
		always("other context: ping", s.routed(s.Other, protoICMP, icmp(8, 0, magic))),
		always("other context: its gateway", s.routed(s.OtherGateway, protoUDP, udp(4000, 53, magic))),
		always("other context: its end of the way out", s.routed(s.OtherLink, protoUDP, udp(4000, 53, magic))),
		always("other context: in passing", s.udpFrom(s.Sibling.MAC, s.Me.MAC, packet{from: s.Other, to: s.OtherGateway})),
	}
}

func (s Scene) shouted() []Class {
	say := func(name string, to net.HardwareAddr, addr netip.Addr) Class {
		return always(name, s.udpFrom(to, s.Me.MAC, packet{from: s.Me.Addr, to: addr}))
	}
	return []Class{
		say("broadcast", broadcast, netip.MustParseAddr("255.255.255.255")),
		say("multicast", net.HardwareAddr{1, 0, 0x5e, 0, 0, 251}, netip.MustParseAddr("224.0.0.251")),
		say("one address to all", broadcast, s.Sibling.Addr),
	}
}

// outwards goes where no way of the policy leads, which allows the web only.
func (s Scene) outwards() []Class {
	out := netip.MustParseAddr("8.8.8.8")
	lan := netip.MustParseAddr("192.168.1.1")
	return []Class{
		always("out: mail", s.routed(out, protoTCP, syn(s.Me.Addr, out, 4000, 25, magic))),
		always("out: names of a stranger", s.routed(out, protoUDP, udp(4000, 53, magic))),
		always("out: private network", s.routed(lan, protoTCP, syn(s.Me.Addr, lan, 4000, 443, magic))),
		always("out: ping", s.routed(out, protoICMP, icmp(8, 0, magic))),
	}
}
