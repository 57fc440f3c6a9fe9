package vnc

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/presentation/driver"
)

// wide is the machine's screen in these tests: it has room for the text.
const wide, high = 400, 200

// seenThrough has a machine draw a grey screen in the pieces given, and returns
// what the viewer sees and what the machine was asked for.
func seenThrough(t *testing.T, text string, grey byte, encodings []rfb.Encoding, pieces ...rfb.Area) (picture []byte, asked []rfb.Encoding) {
	t.Helper()
	viewing, v := pipeOf(t)
	machine, m := pipeOf(t)
	done := make(chan error, 1)
	go func() {
		done <- New(Config{}).Serve(t.Context(), driver.Session{Viewer: v, Machine: m, Policy: driver.Policy{Watermark: text}})
	}()
	drawn := make(chan []rfb.Encoding, 1)
	go func() { drawn <- drawGrey(machine, grey, pieces) }()
	viewing.SetDeadline(time.Now().Add(20 * time.Second))
	c, err := rfb.NewClient(viewing, rfb.Proof{}, encodings...)
	if err == nil {
		err = c.Request(false)
	}
	for range pieces {
		if err == nil {
			err = c.NextFrame()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	viewing.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return slices.Clone(c.Image().Pix), <-drawn
}

func TestTheWatermarkIsInEveryPicture(t *testing.T) {
	whole := rfb.Area{Width: wide, Height: high}
	for name, encodings := range map[string][]rfb.Encoding{"raw": {rfb.Raw}, "compressed": {rfb.Tight, rfb.ZRLE, rfb.Zlib, rfb.CopyRect, rfb.Raw}} {
		for _, grey := range []byte{0, 0x60, 0xff} {
			plain, asked := seenThrough(t, "", grey, encodings, whole)
			if name == "compressed" && !slices.Contains(asked, rfb.Tight) {
				t.Errorf("without a watermark the machine is asked for %v", asked)
			}
			marked, asked := seenThrough(t, "ana desk 2026-11-23", grey, encodings, whole)
			for _, e := range asked {
				if e.Pixels() && e != rfb.Raw {
					t.Errorf("%s: the machine is asked for encoding %d, into which nothing is drawn", name, e)
				}
			}
			n := differ(plain, marked)
			if n < 200 || n > wide*high/4 {
				t.Errorf("%s on %#x: %d pixels differ, want a text's", name, grey, n)
			}
			other, _ := seenThrough(t, "ben desk 2026-11-23", grey, encodings, whole)
			if differ(marked, other) == 0 {
				t.Errorf("%s on %#x: another's watermark is the same", name, grey)
			}
			cut, _ := seenThrough(t, "ana desk 2026-11-23", grey, encodings,
				rfb.Area{Width: 123, Height: 7}, rfb.Area{X: 123, Width: wide - 123, Height: 7}, rfb.Area{Y: 7, Width: wide, Height: high - 7})
			if differ(marked, cut) != 0 {
				t.Errorf("%s on %#x: drawn in pieces, the marks do not fit together", name, grey)
			}
		}
	}
}

func differ(a, b []byte) (n int) {
	for i := 0; i+3 < len(a); i += 4 {
		if !bytes.Equal(a[i:i+3], b[i:i+3]) {
			n++
		}
	}
	return n
}

func TestTheWatermarkIsTheText(t *testing.T) {
	m := newWatermark("H")
	want := []string{"#...#.", "#...#.", "#...#.", "#####.", "#...#.", "#...#.", "#...#."}
	for y, line := range want {
		dots, _ := m.row(y * dot)
		got := ""
		for _, on := range dots {
			got += map[bool]string{true: "#", false: "."}[on]
		}
		if got != line {
			t.Errorf("line %d is %q, want %q", y, got, line)
		}
	}
	if dots, _ := m.row(letterHeight * dot); dots != nil {
		t.Error("there is no room between two lines")
	}
}

func TestAShadeIsSeenInEveryFormat(t *testing.T) {
	low := rfb.PixelFormat{Bits: 16, Depth: 16, BigEndian: true, TrueColour: true, RedMax: 31, GreenMax: 63, BlueMax: 31, RedShift: 11, GreenShift: 5}
	tiny := rfb.PixelFormat{Bits: 8, Depth: 8, TrueColour: true, RedMax: 7, GreenMax: 7, BlueMax: 3, GreenShift: 3, BlueShift: 6}
	for _, f := range []rfb.PixelFormat{rfb.XRGB(), low, tiny} {
		for _, all := range []byte{0, 0xff} {
			b := bytes.Repeat([]byte{all}, int(f.Bytes()))
			was := bytes.Clone(b)
			if shade(b, f); bytes.Equal(b, was) {
				t.Errorf("%d bits: %x stays as it is", f.Bits, was)
			}
		}
	}
}
