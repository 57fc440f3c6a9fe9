// Package hostile is a machine that sends what it must not: many classes of
// frames, and watchers that tell where any of them arrived.
package hostile

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Magic is in every frame that is fired, so that it is known wherever it arrives.
const Magic = "consort-hostile!"

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeRARP = 0x8035
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
	typeIPv6 = 0x86dd
)

// Protocols of IPv4.
const (
	protoICMP = 1
	protoIGMP = 2
	protoIPIP = 4
	protoTCP  = 6
	protoUDP  = 17
	proto6in4 = 41
	protoGRE  = 47
	protoESP  = 50
	protoSCTP = 132
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func ether(to, from net.HardwareAddr, typ uint16, payload []byte) []byte {
	f := append(append([]byte{}, to...), from...)
	f = append(binary.BigEndian.AppendUint16(f, typ), payload...)
	for len(f) < 60 {
		f = append(f, 0)
	}
	return f
}

// packet is an IPv4 header without what is usual.
type packet struct {
	from, to netip.Addr
	proto    byte
	frag     uint16 // flags and offset
	options  []byte // a multiple of four
}

func (p packet) with(payload []byte) []byte {
	size := 20 + len(p.options)
	h := make([]byte, size, size+len(payload))
	h[0] = 0x40 | byte(size/4)
	binary.BigEndian.PutUint16(h[2:], uint16(size+len(payload)))
	binary.BigEndian.PutUint16(h[4:], 7)
	binary.BigEndian.PutUint16(h[6:], p.frag)
	h[8], h[9] = 64, p.proto
	from, to := p.from.As4(), p.to.As4()
	copy(h[12:], from[:])
	copy(h[16:], to[:])
	copy(h[20:], p.options)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// udp has no checksum, which IPv4 allows.
func udp(from, to uint16, payload []byte) []byte {
	h := make([]byte, 8)
	binary.BigEndian.PutUint16(h, from)
	binary.BigEndian.PutUint16(h[2:], to)
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	return append(h, payload...)
}

// syn begins a connection from a to b.
func syn(a, b netip.Addr, from, to uint16, payload []byte) []byte {
	h := make([]byte, 20)
	binary.BigEndian.PutUint16(h, from)
	binary.BigEndian.PutUint16(h[2:], to)
	h[12], h[13] = 5<<4, 2
	binary.BigEndian.PutUint16(h[14:], 65535)
	h = append(h, payload...)
	x, y := a.As4(), b.As4()
	pseudo := append(append(append([]byte{}, x[:]...), y[:]...), 0, protoTCP, byte(len(h)>>8), byte(len(h)))
	binary.BigEndian.PutUint16(h[16:], checksum(append(pseudo, h...)))
	return h
}

func icmp(typ, code byte, payload []byte) []byte {
	h := append([]byte{typ, code, 0, 0, 0, 1, 0, 1}, payload...)
	binary.BigEndian.PutUint16(h[2:], checksum(h))
	return h
}

func arp(op uint16, senderMAC net.HardwareAddr, sender netip.Addr, targetMAC net.HardwareAddr, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, byte(op >> 8), byte(op)}
	s, t := sender.As4(), target.As4()
	b = append(append(b, senderMAC...), s[:]...)
	b = append(append(b, targetMAC...), t[:]...)
	return append(b, Magic...)
}

func ipv6(next byte, to netip.Addr, payload []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, next, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	from, dst := netip.MustParseAddr("fe80::bad").As16(), to.As16()
	copy(h[8:], from[:])
	copy(h[24:], dst[:])
	return append(h, payload...)
}
