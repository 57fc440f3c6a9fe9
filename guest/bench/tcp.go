package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// What the host asks for on a connection, by its first byte.
const (
	take = 't' // the guest takes all that comes, then says in 8 bytes, big-endian, how much it was
	give = 'g' // the guest gives for the time that the workload lasts
)

// chunk is how much is written at a time, in bytes.
const chunk = 64 << 10

// patience is how long the guest waits for the host beyond the workload itself.
const patience = 30 * time.Second

// tcp serves the host, which measures, on the TCP port given: one connection
// for each way. Its own figure is what it moved, so that the two can be compared.
func tcp(d time.Duration, args []string) (figures, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("say on which port to listen")
	}
	l, err := net.Listen("tcp4", ":"+args[0])
	if err != nil {
		return nil, err
	}
	defer l.Close()
	end := time.Now().Add(2*d + patience)
	l.(*net.TCPListener).SetDeadline(end)
	moved := figures{}
	for len(moved) < 2 {
		conn, err := l.Accept()
		if err != nil {
			return nil, fmt.Errorf("the host did not come: %w", err)
		}
		conn.SetDeadline(end)
		way, n, err := serve(conn, d)
		conn.Close()
		if err != nil {
			return nil, err
		}
		moved[way] = float64(n)
	}
	return moved, nil
}

// serve does what the host asks for on one connection and returns how many
// bytes went which way.
func serve(conn net.Conn, d time.Duration) (way string, n int64, err error) {
	var what [1]byte
	if _, err := io.ReadFull(conn, what[:]); err != nil {
		return "", 0, err
	}
	switch what[0] {
	case take:
		if n, err = io.Copy(io.Discard, conn); err == nil {
			err = binary.Write(conn, binary.BigEndian, n)
		}
		return "taken_bytes", n, err
	case give:
		b := make([]byte, chunk)
		for began := time.Now(); err == nil && time.Since(began) < d; {
			var more int
			more, err = conn.Write(b)
			n += int64(more)
		}
		return "given_bytes", n, err
	}
	return "", 0, fmt.Errorf("the host asks for %q, which nobody knows", what[0])
}
