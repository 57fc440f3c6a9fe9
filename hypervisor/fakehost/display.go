package fakehost

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"

	"consort.dev/consort/estate"
)

// Display implements driver.Displayer: a small server of RFB 3.8 (RFC 6143)
// without authentication, whose screen is one colour that every key changes.
// The connection ends with the machine.
func (h *Host) Display(ctx context.Context, id estate.MachineID) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.running(id)
	if err != nil {
		return nil, err
	}
	s := m.Def.Screen
	if s.Width == 0 || s.Height == 0 {
		s = estate.Screen{Width: 64, Height: 48}
	}
	ours, theirs := net.Pipe()
	off, done := m.off, make(chan struct{})
	go func() {
		defer close(done)
		serveScreen(ours, s, m.Def.Name)
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
