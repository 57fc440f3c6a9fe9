package rdp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/fault"
	"consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/drivertest"
)

func TestConformance(t *testing.T) {
	for name, tls := range map[string]bool{"TLS": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, func(*testing.T) drivertest.Rig {
				return drivertest.Rig{
					Provider: New(),
					Machine: func(c io.ReadWriteCloser) drivertest.Machine {
						m := &machine{ends: ends{conn: c, tls: tls}}
						go m.serve()
						return m
					},
					Viewer: func(c io.ReadWriteCloser, _ string) (drivertest.Viewer, error) { return open(c, tls) },
				}
			})
		})
	}
}

var (
	request = []byte{3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0}
	secured = []byte{3, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, 2, 0, 8, 0, 1, 0, 0, 0}
	classic = []byte{3, 0, 0, 11, 6, 0xd0, 0, 0, 0x12, 0x34, 0}
)

// ends is what both actors share: pieces with a verb and a text inside.
type ends struct {
	conn io.ReadWriteCloser
	tls  bool
	in   *bufio.Reader
}

func (e *ends) say(verb byte, body string) error {
	n := len(body) + 3 // the shortest packet has three bytes inside
	head := []byte{3, 0, byte((n + 4) >> 8), byte(n + 4)}
	if e.tls {
		head = []byte{23, 3, 3, byte(n >> 8), byte(n)}
	}
	_, err := e.conn.Write(append(append(head, verb, 0, 0), body...))
	return err
}

func (e *ends) hear() (verb byte, body string, err error) {
	size := 4
	if e.tls {
		size = 5
	}
	head := make([]byte, size)
	if _, err := io.ReadFull(e.in, head); err != nil {
		return 0, "", err
	}
	n := int(binary.BigEndian.Uint16(head[size-2:]))
	if !e.tls {
		n -= 4
	}
	b := make([]byte, n)
	_, err = io.ReadFull(e.in, b)
	if err != nil {
		return 0, "", err
	}
	return b[0], string(b[3:]), nil
}

func (e *ends) Break() error {
	_, err := e.conn.Write(bytes.Repeat([]byte{0xff}, 16))
	return err
}

type machine struct {
	ends
	mu          sync.Mutex
	typed, text string
}

func (m *machine) serve() {
	m.in = bufio.NewReader(m.conn)
	if _, err := readOpening(m.in, x224Request); err != nil {
		return
	}
	confirm := classic
	if m.tls {
		confirm = secured
	}
	if _, err := m.conn.Write(confirm); err != nil {
		return
	}
	for {
		verb, body, err := m.hear()
		if err != nil {
			return
		}
		m.mu.Lock()
		switch verb {
		case 'k':
			m.typed += body
		case 'c':
			m.text = body
		case 'l':
			_ = m.say('p', strings.Repeat("pixels", 2000))
		}
		m.mu.Unlock()
	}
}

func (m *machine) Typed() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.typed
}

func (m *machine) Pasted() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text
}

func (m *machine) Copy(text string) error { return m.say('c', text) }

type viewer struct {
	ends
	text string
}

func open(c io.ReadWriteCloser, tls bool) (*viewer, error) {
	v := &viewer{ends: ends{conn: c, tls: tls, in: bufio.NewReader(c)}}
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	if _, err := readOpening(v.in, x224Confirm); err != nil {
		return nil, err
	}
	return v, v.Look()
}

func (v *viewer) Look() error {
	if err := v.say('l', ""); err != nil {
		return err
	}
	for {
		verb, body, err := v.hear()
		if err != nil || verb == 'p' {
			return err
		}
		v.text = body
	}
}

func (v *viewer) Type(key byte) error     { return v.say('k', string(key)) }
func (v *viewer) Paste(text string) error { return v.say('c', text) }
func (v *viewer) Copied() string          { return v.text }
func (v *viewer) Ask(bool) error          { return nil } // there is nothing for that

// rw is a viewer's end that says one thing and listens to nothing.
type rw struct{ io.Reader }

func (rw) Write(b []byte) (int, error) { return len(b), nil }
func (rw) Close() error                { return nil }

func TestOnlyTheProtocolIsLetThrough(t *testing.T) {
	policy := driver.Policy{}
	policy.Clipboard.In, policy.Clipboard.Out = true, true
	for name, first := range map[string]string{
		"HTTP": "GET / HTTP/1.1\r\n\r\n", "SSH": "SSH-2.0-OpenSSH_9.2\r\n", "TLS at once": "\x16\x03\x01\x02\x00\x01\x00\x01",
		"huge": "\x03\x00\xff\xff\x0e\xe0\x00\x00\x00\x00\x00", "a confirm": string(secured), "short": "\x03\x00\x00\x05\x00\xe0\x00\x00\x00\x00\x00",
	} {
		var got bytes.Buffer
		err := New().Serve(t.Context(), driver.Session{
			Viewer: rw{strings.NewReader(first)}, Machine: &recorder{rw{strings.NewReader("")}, &got}, Policy: policy,
		})
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: Serve = %v, want %v", name, err, fault.Invalid)
		}
		if got.Len() != 0 {
			t.Errorf("%s: the machine got %q", name, got.Bytes())
		}
	}
}

type recorder struct {
	rw
	got *bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) { return r.got.Write(b) }

func TestFileHoldsNoPassword(t *testing.T) {
	f, err := New().File(t.Context(), driver.Handoff{Host: "127.0.0.1", Port: 3390, User: "user", Secret: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	got := string(f.Content)
	if strings.Contains(got, "s3cret") || !strings.Contains(got, "full address:s:127.0.0.1:3390\r\n") || !strings.Contains(got, "username:s:user\r\n") {
		t.Errorf("file = %q", got)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(append(append([]byte{}, request...), 23, 3, 3, 0, 1, 'x'), true)
	f.Add([]byte{3, 0, 0, 8, 1, 2, 3, 4, 0, 0x80, 5, 1, 1}, false)
	f.Fuzz(func(t *testing.T, b []byte, tls bool) {
		r := bufio.NewReaderSize(bytes.NewReader(b), buffer)
		if confirm, err := readOpening(r, x224Confirm); err == nil {
			tls = negotiated(confirm)
		}
		next := nextPlain
		if tls {
			next = nextTLS
		}
		pump(r, io.Discard, next, driver.ViewerGone, driver.MachineGone, func(frame) {})
	})
}
