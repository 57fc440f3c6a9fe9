package rfb

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"image/color"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"consort.dev/consort/fault"
)

func TestMessagesComeBackAsTheyWent(t *testing.T) {
	for _, want := range viewerSays() {
		v := ViewerReader{R: bufio.NewReader(bytes.NewReader(want.append(nil))), TextLimit: 1 << 10}
		if got, err := v.Read(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("viewer: %#v, %v; want %#v", got, err, want)
		}
	}
	for _, want := range serverSays() {
		s := ServerReader{R: bufio.NewReader(bytes.NewReader(want.append(nil))), TextLimit: 1 << 10}
		if got, err := s.Read(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("server: %#v, %v; want %#v", got, err, want)
		}
	}
}

func TestOpeningsMeet(t *testing.T) {
	for _, c := range []struct {
		name  string
		guard Guard
		proof Proof
		want  bool
	}{
		{"nothing asked", Guard{}, Proof{}, true},
		{"right password", Guard{Password: "12345678"}, Proof{Password: "12345678"}, true},
		{"wrong password", Guard{Password: "12345678"}, Proof{Password: "12345679"}, false},
		{"no password", Guard{Password: "12345678"}, Proof{}, false},
		{"right name", Guard{Plain: func(n, p string) bool { return n == "ana" && p == "x" }}, Proof{"ana", "x"}, true},
		{"wrong name", Guard{Plain: func(n, p string) bool { return n == "ana" && p == "x" }}, Proof{"bea", "x"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := net.Pipe()
			c.guard.Random = zeros{}
			init := ServerInit{Width: 8, Height: 4, Format: XRGB(), Name: "screen"}
			done := make(chan error, 1)
			go func() {
				defer a.Close()
				_, err := Accept(bufio.NewReader(a), a, c.guard)
				if err == nil {
					err = Write(a, init)
				}
				done <- err
			}()
			got, err := Open(bufio.NewReader(b), b, c.proof)
			b.Close()
			served := <-done
			if c.want != (err == nil) || c.want != (served == nil) {
				t.Fatalf("viewer: %v; server: %v; want success %v", err, served, c.want)
			}
			if c.want && got != init {
				t.Errorf("ServerInit = %+v, want %+v", got, init)
			}
			if !c.want && (!errors.Is(err, fault.Denied) || !errors.Is(served, fault.Denied)) {
				t.Errorf("viewer: %v; server: %v; want %v", err, served, fault.Denied)
			}
		})
	}
}

// The answer was computed with openssl's DES, the bits of each byte of the key
// in reverse.
func TestClassicAnswer(t *testing.T) {
	challenge := []byte("0123456789abcdef")
	got := respond(challenge, "password")
	if want := "5645abeb5f1e6475e8feb11beb66ea19"; hex.EncodeToString(got) != want {
		t.Errorf("answer = %x, want %s", got, want)
	}
	if again := respond(challenge, "passwordX"); !bytes.Equal(got, again) {
		t.Error("more than eight characters count")
	}
	if other := respond(challenge, "passworD"); bytes.Equal(got, other) {
		t.Error("the eighth character does not count")
	}
}

func TestWhatIsNotTheProtocolIsRefused(t *testing.T) {
	for name, b := range map[string]string{
		"unknown":               "\x4d",
		"file transfer":         "\x07aaaaaaaaaaaa",
		"power":                 "\xfa\x00\x01\x02",
		"sound":                 "\xff\x01\x00\x00aaaaaaaaaaaa",
		"too many encodings":    "\x02\x00\xff\xff",
		"pixel format of 24":    "\x00\x00\x00\x00" + string(PixelFormat{Bits: 24, Depth: 24}.bytes()),
		"fence of 65":           "\xf8\x00\x00\x00\x00\x00\x00\x00\x41",
		"screens of 255":        "\xfb\x00\x00\x01\x00\x01\xff\x00",
		"clipboard of 4 GiB":    "\x06\x00\x00\x00\x7f\xff\xff\xff",
		"clipboard of -2 GiB":   "\x06\x00\x00\x00\x80\x00\x00\x00",
		"extended of 1 byte":    "\x06\x00\x00\x00\xff\xff\xff\xff" + "a",
		"extended not deflated": "\x06\x00\x00\x00\xff\xff\xff\xf0" + "\x10\x00\x00\x01" + "aaaaaaaaaaaa",
	} {
		v := ViewerReader{R: bufio.NewReader(strings.NewReader(b)), TextLimit: 1 << 10}
		if m, err := v.Read(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %#v, %v; want %v", name, m, err, fault.Invalid)
		}
	}
}

func (f PixelFormat) bytes() []byte { return f.append(nil) }

func TestLongTextIsSkippedAndNotHeld(t *testing.T) {
	const long = 64 << 20
	head := binary.BigEndian.AppendUint32([]byte{6, 0, 0, 0}, long)
	r := io.MultiReader(bytes.NewReader(head), io.LimitReader(zeros{}, long), bytes.NewReader(Bell{}.append(nil)))
	v := ViewerReader{R: bufio.NewReader(r), TextLimit: 1 << 10}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := v.Read()
	runtime.ReadMemStats(&after)
	if got, want := m, (Text{Skipped: long}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read = %#v, %v; want %#v", got, err, want)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("skipping took %d bytes of memory", took)
	}
}

// A text that inflates to far more than allowed is skipped, not inflated.
func TestDeflatedBombIsSkipped(t *testing.T) {
	m := ClipboardMark{Actions: ClipboardProvide, HasText: true, Text: strings.Repeat("a", 1<<20)}
	v := ViewerReader{R: bufio.NewReader(bytes.NewReader(m.append(nil))), TextLimit: 1 << 10}
	got, err := v.Read()
	if err != nil || got.(ClipboardMark).Text != "" || got.(ClipboardMark).Skipped < 1<<20 {
		t.Errorf("Read = %+v, %v; want it skipped", got, err)
	}
}

// bodies are rectangles of 20 by 20 pixels of one colour in every encoding.
func bodies() map[Encoding][]byte {
	pixel := []byte{3, 2, 1, 0} // blue, green, red
	deflate := func(b []byte) []byte {
		var out bytes.Buffer
		z := zlib.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Flush()
		return out.Bytes()
	}
	sized := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	raw := bytes.Repeat(pixel, 400)
	tiles := append(append([]byte{2}, pixel...), 0, 0, 0)
	return map[Encoding][]byte{
		Raw:     raw,
		Hextile: tiles,
		Zlib:    sized(deflate(raw)),
		ZRLE:    sized(deflate([]byte{1, 3, 2, 1})),
		Tight:   {0x80, 1, 2, 3},
	}
}

func TestEveryEncodingDrawsTheSame(t *testing.T) {
	for e, body := range bodies() {
		b := append(Rect{Area{0, 0, 20, 20}, e}.append(Update{1}.append(nil)), body...)
		c := &Client{conn: closed{}, reader: ServerReader{R: bufio.NewReader(bytes.NewReader(b))}}
		c.picture.resize(20, 20)
		if err := c.NextFrame(); err != nil {
			t.Errorf("encoding %d: %v", e, err)
			continue
		}
		for _, at := range [][2]int{{0, 0}, {19, 19}, {7, 13}} {
			if got, want := c.Image().At(at[0], at[1]), (color.RGBA{1, 2, 3, 255}); got != want {
				t.Errorf("encoding %d at %v: %v, want %v", e, at, got, want)
			}
		}
	}
}

func TestRectanglesStayInsideTheirBounds(t *testing.T) {
	for name, rect := range map[string]Rect{
		"outside": {Area{10, 10, 20, 20}, Raw}, "wraps": {Area{65535, 0, 2, 2}, Raw},
		"cursor": {Area{0, 0, 2000, 2000}, Cursor}, "unknown": {Area{0, 0, 1, 1}, 50},
	} {
		b := append(rect.append(Update{1}.append(nil)), make([]byte, 64)...)
		c := &Client{conn: closed{}, reader: ServerReader{R: bufio.NewReader(bytes.NewReader(b))}}
		c.picture.resize(20, 20)
		if err := c.NextFrame(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, want %v", name, err, fault.Invalid)
		}
	}
}

// vncpasswd of any maker writes these bytes for "password".
func TestPasswordFileIsThatOfClassicViewers(t *testing.T) {
	if got, want := fmt.Sprintf("%x", PasswordFile("password")), "dbd83cfd727a1458"; got != want {
		t.Errorf("PasswordFile = %s, want %s", got, want)
	}
}
