package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// sizes are those of whole IP packets, in bytes.
var sizes = []int{64, 256, 512, 1024, 1500}

// packets sends ICMP echoes (RFC 792) to the address given, or to the default
// gateway, which is the host's own kernel: for each size the round trips one at
// a time, in microseconds, and how many come back in a second with 32 under way.
func packets(d time.Duration, args []string) (figures, error) {
	to, err := peer(args)
	if err != nil {
		return nil, err
	}
	conn, err := net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: to})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	each := d / 4 // 2.5 times d in all
	out := figures{}
	for _, size := range sizes {
		trips, err := pingPong(conn, size, each)
		if err != nil {
			return nil, fmt.Errorf("%s does not answer: %w", to, err)
		}
		slices.Sort(trips)
		for _, p := range []int{50, 95, 99} {
			at := trips[min(len(trips)-1, len(trips)*p/100)]
			out[fmt.Sprintf("rtt_%d_p%d_us", size, p)] = float64(at.Nanoseconds()) / 1e3
		}
		rate, err := flood(conn, size, each)
		if err != nil {
			return nil, err
		}
		out[fmt.Sprintf("rate_%d_per_s", size)] = rate
	}
	return out, nil
}

// peer is the address given, or the default gateway.
func peer(args []string) (net.IP, error) {
	if len(args) > 0 {
		if ip := net.ParseIP(args[0]).To4(); ip != nil {
			return ip, nil
		}
		return nil, fmt.Errorf("%q is no IPv4 address", args[0])
	}
	routes, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(routes)) {
		var iface string
		var dest, gateway uint32
		if n, _ := fmt.Sscanf(line, "%s %x %x", &iface, &dest, &gateway); n == 3 && dest == 0 && gateway != 0 {
			ip := make(net.IP, 4)
			binary.LittleEndian.PutUint32(ip, gateway) // as the kernel prints it on x86
			return ip, nil
		}
	}
	return nil, errors.New("there is no default gateway; name an address")
}

// headers are those of IPv4 and of an ICMP echo, in bytes.
const headers = 20 + 8

// echo returns an ICMP echo request of the whole packet's size.
func echo(size, seq int) []byte {
	b := make([]byte, size-20)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], uint16(os.Getpid()))
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// next waits for one of our answers and returns its sequence number.
func next(conn *net.IPConn, b []byte) (int, error) {
	for {
		n, err := conn.Read(b) // without the IP header, as package net has it
		if err != nil {
			return 0, err
		}
		m := b[:n]
		if n > headers && m[0]>>4 == 4 {
			m = m[20:] // some kernels leave it on
		}
		if len(m) >= 8 && m[0] == 0 && binary.BigEndian.Uint16(m[4:]) == uint16(os.Getpid()) {
			return int(binary.BigEndian.Uint16(m[6:])), nil
		}
	}
}

func pingPong(conn *net.IPConn, size int, d time.Duration) ([]time.Duration, error) {
	var trips []time.Duration
	b := make([]byte, 2048)
	for began, seq := time.Now(), 0; time.Since(began) < d || len(trips) == 0; seq++ {
		conn.SetReadDeadline(time.Now().Add(time.Second))
		sent := time.Now()
		if _, err := conn.Write(echo(size, seq)); err != nil {
			return nil, err
		}
		for {
			got, err := next(conn, b)
			if err != nil {
				return nil, err
			}
			if got == seq&0xffff {
				break
			}
		}
		trips = append(trips, time.Since(sent))
	}
	return trips, nil
}

// window is how many packets are under way in flood.
const window = 32

// lost is after which time without any answer packets count as lost: longer than
// a round trip takes where processors are emulated twice over.
const lost = 200 * time.Millisecond

// flood returns how many answers come in a second. What is lost is sent anew. A
// path so slow that d brings no answer has some seconds more.
func flood(conn *net.IPConn, size int, d time.Duration) (float64, error) {
	b := make([]byte, 2048)
	seq, answered, began := 0, 0, time.Now()
	send := func() error {
		seq++
		_, err := conn.Write(echo(size, seq))
		return err
	}
	for range window {
		if err := send(); err != nil {
			return 0, err
		}
	}
	for time.Since(began) < d || answered == 0 && time.Since(began) < 3*time.Second {
		conn.SetReadDeadline(time.Now().Add(lost))
		_, err := next(conn, b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if err == nil {
			answered++
		}
		if err := send(); err != nil {
			return 0, err
		}
	}
	return float64(answered) / time.Since(began).Seconds(), nil
}
