package rfb

import (
	"bufio"
	"crypto/des" //nolint:gosec // the protocol's own challenge; the secret is for one use
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"consort.dev/consort/fault"
)

// Security types.
const (
	securityNone     = 1
	securityPassword = 2
	securityVeNCrypt = 19
	vencryptPlain    = 256
)

// Guard is what a server asks of a viewer. The zero Guard asks nothing.
type Guard struct {
	// Password is shown by the classic challenge, which looks at 8 bytes.
	Password string
	// Plain, when set, offers a name and a password in the clear instead; use
	// it inside TLS only.
	Plain func(name, password string) bool
	// Random makes the challenge.
	Random io.Reader
}

func (g *Guard) kind() byte {
	switch {
	case g.Plain != nil:
		return securityVeNCrypt
	case g.Password != "":
		return securityPassword
	}
	return securityNone
}

// Accept speaks the server's part of the opening up to and including the
// viewer's ClientInit, and reports whether the viewer would share. A viewer
// that does not pass the guard is told so and is fault.Denied. It has one try.
func Accept(r *bufio.Reader, w io.Writer, g Guard) (shared bool, err error) {
	if _, err := io.WriteString(w, "RFB 003.008\n"); err != nil {
		return false, err
	}
	minor, err := readVersion(r)
	if err != nil {
		return false, err
	}
	if err := g.offer(r, w, minor); err != nil {
		return false, err
	}
	passed, err := g.judge(r, w)
	if err != nil {
		return false, err
	}
	if !passed {
		refuse(w, minor, "wrong password; ask for a new connection file")
		return false, fault.Denied.Errorf("the viewer did not show the secret")
	}
	if g.kind() != securityNone || minor >= 8 {
		if _, err := w.Write([]byte{0, 0, 0, 0}); err != nil {
			return false, err
		}
	}
	b, err := r.ReadByte()
	return b != 0, err
}

// readVersion returns the minor version to speak: 3, 7 or 8.
func readVersion(r *bufio.Reader) (int, error) {
	b, err := take(r, 12)
	if err != nil {
		return 0, err
	}
	var major, minor int
	if n, _ := fmt.Sscanf(string(b), "RFB %03d.%03d\n", &major, &minor); n != 2 || b[11] != '\n' {
		return 0, fault.Invalid.Errorf("version %q", b)
	}
	switch {
	case major > 3 || major == 3 && minor >= 8:
		return 8, nil
	case major == 3 && minor == 7:
		return 7, nil
	case major == 3 && minor >= 3: // 3.5 and others mean 3.3
		return 3, nil
	}
	return 0, fault.Invalid.Errorf("version %d.%d", major, minor)
}

// offer names the one security type and waits until the viewer has taken it.
func (g *Guard) offer(r *bufio.Reader, w io.Writer, minor int) error {
	if minor == 3 {
		if g.kind() == securityVeNCrypt {
			refuse(w, minor, "this needs a viewer of protocol 3.7 or later")
			return fault.Invalid.Errorf("viewer of protocol 3.3 where a name is asked for")
		}
		_, err := w.Write([]byte{0, 0, 0, g.kind()})
		return err
	}
	if _, err := w.Write([]byte{1, g.kind()}); err != nil {
		return err
	}
	chosen, err := r.ReadByte()
	if err == nil && chosen != g.kind() {
		refuse(w, minor, "that security type was not offered")
		return fault.Invalid.Errorf("security type %d, which was not offered", chosen)
	}
	return err
}

// judge reports whether the viewer passes.
func (g *Guard) judge(r *bufio.Reader, w io.Writer) (bool, error) {
	switch g.kind() {
	case securityPassword:
		challenge := make([]byte, 16)
		if _, err := io.ReadFull(g.Random, challenge); err != nil {
			return false, fault.Internal.Errorf("make a challenge: %w", err)
		}
		if _, err := w.Write(challenge); err != nil {
			return false, err
		}
		answer, err := take(r, 16)
		if err != nil {
			return false, err
		}
		return subtle.ConstantTimeCompare(answer, respond(challenge, g.Password)) == 1, nil
	case securityVeNCrypt:
		name, password, err := acceptPlain(r, w)
		if err != nil {
			return false, err
		}
		return g.Plain(name, password), nil
	}
	return true, nil
}

// acceptPlain speaks VeNCrypt 0.2 with the one subtype Plain.
func acceptPlain(r *bufio.Reader, w io.Writer) (name, password string, err error) {
	if _, err := w.Write([]byte{0, 2}); err != nil {
		return "", "", err
	}
	v, err := take(r, 2)
	if err != nil {
		return "", "", err
	}
	if v[0] != 0 || v[1] != 2 {
		return "", "", fault.Invalid.Errorf("VeNCrypt version %d.%d", v[0], v[1])
	}
	if _, err := w.Write([]byte{0, 1, 0, 0, vencryptPlain >> 8, vencryptPlain & 0xff}); err != nil {
		return "", "", err
	}
	b, err := take(r, 12)
	if err != nil {
		return "", "", err
	}
	be := binary.BigEndian
	if sub := be.Uint32(b); sub != vencryptPlain {
		return "", "", fault.Invalid.Errorf("VeNCrypt subtype %d, which was not offered", sub)
	}
	n, p := be.Uint32(b[4:]), be.Uint32(b[8:])
	if n > 1024 || p > 1024 {
		return "", "", fault.Invalid.Errorf("name of %d and password of %d bytes", n, p)
	}
	both, err := take(r, int(n+p))
	if err != nil {
		return "", "", err
	}
	return string(both[:n]), string(both[n:]), nil
}

// refuse tells the viewer why; a connection that broke meanwhile does not matter.
func refuse(w io.Writer, minor int, why string) {
	b := []byte{0, 0, 0, 1}
	if minor >= 8 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(why)))
		b = append(b, why...)
	}
	_, _ = w.Write(b)
}

// respond is the classic answer to a challenge: DES under the first 8 bytes of
// the password, the bits of each byte in reverse (RFC 6143, 7.2.2).
func respond(challenge []byte, password string) []byte {
	key := make([]byte, 8)
	copy(key, password)
	for i := range key {
		key[i] = bits.Reverse8(key[i])
	}
	c, err := des.NewCipher(key) //nolint:gosec // see the import
	if err != nil {
		panic(err) // the key has 8 bytes
	}
	out := make([]byte, 16)
	c.Encrypt(out, challenge)
	c.Encrypt(out[8:], challenge[8:])
	return out
}

// Proof is what a viewer shows to a server that asks.
type Proof struct{ Name, Password string }

// Open speaks the viewer's part of the opening up to the server's ServerInit.
// The session is shared. A server that refuses is fault.Denied.
func Open(r *bufio.Reader, w io.Writer, p Proof) (ServerInit, error) {
	minor, err := readVersion(r)
	if err != nil {
		return ServerInit{}, err
	}
	if _, err := fmt.Fprintf(w, "RFB 003.%03d\n", minor); err != nil {
		return ServerInit{}, err
	}
	kind, err := choose(r, w, minor)
	if err != nil {
		return ServerInit{}, err
	}
	if err := p.show(r, w, kind); err != nil {
		return ServerInit{}, err
	}
	if kind != securityNone || minor >= 8 {
		if err := readResult(r, minor); err != nil {
			return ServerInit{}, err
		}
	}
	if _, err := w.Write([]byte{1}); err != nil {
		return ServerInit{}, err
	}
	return readServerInit(r)
}

// choose takes the first security type that we speak.
func choose(r *bufio.Reader, w io.Writer, minor int) (byte, error) {
	if minor == 3 {
		b, err := take(r, 4)
		if err != nil {
			return 0, err
		}
		if b[3] == 0 {
			return 0, readReason(r)
		}
		return b[3], nil
	}
	n, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, readReason(r)
	}
	offered, err := take(r, int(n))
	if err != nil {
		return 0, err
	}
	for _, kind := range []byte{securityNone, securityPassword, securityVeNCrypt} {
		if slices.Contains(offered, kind) {
			_, err := w.Write([]byte{kind})
			return kind, err
		}
	}
	return 0, fault.Unsupported.Errorf("the server offers only the security types %d", offered)
}

func (p *Proof) show(r *bufio.Reader, w io.Writer, kind byte) error {
	switch kind {
	case securityNone:
		return nil
	case securityPassword:
		challenge, err := take(r, 16)
		if err == nil {
			_, err = w.Write(respond(challenge, p.Password))
		}
		return err
	case securityVeNCrypt:
		return p.showPlain(r, w)
	}
	return fault.Unsupported.Errorf("the server asks for security type %d", kind)
}

func (p *Proof) showPlain(r *bufio.Reader, w io.Writer) error {
	if _, err := take(r, 2); err != nil {
		return err
	}
	if _, err := w.Write([]byte{0, 2}); err != nil {
		return err
	}
	b, err := take(r, 2)
	if err != nil {
		return err
	}
	if b[0] != 0 {
		return fault.Unsupported.Errorf("the server does not speak VeNCrypt 0.2")
	}
	subs, err := take(r, int(b[1])*4)
	if err != nil {
		return err
	}
	for i := 0; i < len(subs); i += 4 {
		if binary.BigEndian.Uint32(subs[i:]) != vencryptPlain {
			continue
		}
		out := binary.BigEndian.AppendUint32(nil, vencryptPlain)
		out = binary.BigEndian.AppendUint32(out, uint32(len(p.Name)))
		out = binary.BigEndian.AppendUint32(out, uint32(len(p.Password)))
		_, err := w.Write(append(append(out, p.Name...), p.Password...))
		return err
	}
	return fault.Unsupported.Errorf("the server does not offer a plain password")
}

func readResult(r *bufio.Reader, minor int) error {
	b, err := take(r, 4)
	if err != nil || binary.BigEndian.Uint32(b) == 0 {
		return err
	}
	if minor < 8 {
		return fault.Denied.Errorf("the server refuses")
	}
	return readReason(r)
}

// readReason returns the server's refusal as an error, always.
func readReason(r *bufio.Reader) error {
	text, err := takeText(r, MaxReason)
	if err != nil {
		return err
	}
	return fault.Denied.Errorf("the server refuses: %q", text)
}

// takeText reads a length and that many bytes, at most most.
func takeText(r *bufio.Reader, most uint32) ([]byte, error) {
	b, err := take(r, 4)
	if err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(b)
	if n > most {
		return nil, fault.Invalid.Errorf("text of %d bytes, at most %d", n, most)
	}
	return take(r, int(n))
}

// ServerInit is how a server introduces its framebuffer.
type ServerInit struct {
	Width, Height int
	Format        PixelFormat
	Name          string
}

func (s ServerInit) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(s.Width))
	b = binary.BigEndian.AppendUint16(b, uint16(s.Height))
	b = s.Format.append(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Name)))
	return append(b, s.Name...)
}

func readServerInit(r *bufio.Reader) (s ServerInit, err error) {
	b, err := take(r, 20)
	if err != nil {
		return s, err
	}
	s.Width = int(binary.BigEndian.Uint16(b))
	s.Height = int(binary.BigEndian.Uint16(b[2:]))
	if err := CheckSize(s.Width, s.Height); err != nil {
		return s, err
	}
	if s.Format, err = parsePixelFormat(b[4:]); err != nil {
		return s, err
	}
	name, err := takeText(r, MaxName)
	s.Name = string(name)
	return s, err
}
