package fakehost

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// Display implements driver.Displayer: a small server of RFB 3.8 (RFC 6143)
// without authentication, whose screen is one colour that every key changes.
// The connection ends with the machine.
func (h *Host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.connect(id, func(m driver.Machine, conn net.Conn) {
		s := m.Def.Screen
		if s.Width == 0 || s.Height == 0 {
			s = estate.Screen{Width: 64, Height: 48}
		}
		serveScreen(conn, s, m.Def.Name)
	})
}

// Console implements driver.Consoler: it greets with Greeting and the machine's
// name, and echoes what it is told.
func (h *Host) Console(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.connect(id, func(m driver.Machine, conn net.Conn) {
		if _, err := io.WriteString(conn, Greeting+" "+m.Def.Name+"\r\n"); err == nil {
			io.Copy(conn, conn) // until either side ends
		}
	})
}

// Greeting begins what every guest says on its console.
const Greeting = "this is"

// connect returns a connection to a running machine, at whose other end serve
// is. It ends with the machine.
func (h *Host) connect(id estate.MachineID, serve func(driver.Machine, net.Conn)) (io.ReadWriteCloser, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	seen, off, done := m.copy(), m.off, make(chan struct{})
	go func() {
		defer close(done)
		serve(seen, ours)
	}()
	go func() {
		select {
		case <-off:
		case <-done:
		}
		ours.Close()
	}()
	return theirs, nil
}

// serveScreen speaks to one viewer until either side ends. What it is told
// comes from our own tests, so it trusts sizes.
func serveScreen(conn net.Conn, s estate.Screen, name string) {
	r := bufio.NewReader(conn)
	if !handshake(conn, r, s, name) {
		return
	}
	colour, shown, asked := byte(0x40), -1, false
	body := map[byte]int{0: 19, 3: 9, 4: 7, 5: 5} // bytes after the message type, RFC 6143 7.5
	for {
		kind, err := r.ReadByte()
		if err != nil {
			return
		}
		skip := body[kind]
		switch kind {
		case 2: // SetEncodings
			b, err := r.Peek(3)
			if err != nil {
				return
			}
			skip = 3 + 4*int(binary.BigEndian.Uint16(b[1:]))
		case 6: // ClientCutText
			b, err := r.Peek(7)
			if err != nil {
				return
			}
			skip = 7 + int(binary.BigEndian.Uint32(b[3:]))
		}
		msg := make([]byte, skip)
		if _, err := io.ReadFull(r, msg); err != nil {
			return
		}
		switch {
		case kind == 4 && msg[0] == 1: // a key went down
			colour += 0x10
		case kind == 3: // asked for an update: at once, or when something changes
			asked = true
			if msg[0] == 0 {
				shown = -1
			}
		}
		if asked && shown != int(colour) {
			asked, shown = false, int(colour)
			if _, err := conn.Write(update(s, colour)); err != nil {
				return
			}
		}
	}
}

func handshake(conn net.Conn, r io.Reader, s estate.Screen, name string) bool {
	say := func(b []byte, answer int) bool {
		if _, err := conn.Write(b); err != nil {
			return false
		}
		_, err := io.ReadFull(r, make([]byte, answer))
		return err == nil
	}
	format := []byte{32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0}
	b := binary.BigEndian.AppendUint16(nil, uint16(s.Width))
	b = binary.BigEndian.AppendUint16(b, uint16(s.Height))
	b = append(b, format...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	return say([]byte("RFB 003.008\n"), 12) && // version
		say([]byte{1, 1}, 1) && // security: none
		say([]byte{0, 0, 0, 0}, 1) && // accepted; shared flag
		say(append(b, name...), 0)
}

func update(s estate.Screen, colour byte) []byte {
	b := []byte{0, 0, 0, 1, 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(s.Width))
	b = binary.BigEndian.AppendUint16(b, uint16(s.Height))
	b = append(b, 0, 0, 0, 0) // raw
	for range s.Width * s.Height {
		b = append(b, colour, colour, colour, 0)
	}
	return b
}
