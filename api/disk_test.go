package api_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/fault"
)

// disk returns a content with runs of zeros of every length in it.
func disk(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 0))
	var b []byte
	for range 1 + rnd.IntN(12) {
		run := make([]byte, rnd.IntN(40<<10))
		if rnd.IntN(2) == 0 {
			for i := range run {
				run[i] = byte(rnd.IntN(3)) // some zeros among it
			}
		}
		b = append(b, run...)
	}
	return b
}

// sent returns what goes through the tunnel for a disk, written piece by piece.
func sent(t *testing.T, content []byte, piece int, broken error) []byte {
	t.Helper()
	var wire bytes.Buffer
	w := api.NewDiskWriter(&wire)
	for rest := content; len(rest) > 0; {
		n := min(len(rest), piece)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.End(broken); err != nil {
		t.Fatal(err)
	}
	return wire.Bytes()
}

func TestADiskComesAsItWasSent(t *testing.T) {
	for seed := range uint64(60) {
		content := disk(seed)
		for _, piece := range []int{1 + int(seed)*37, 4096, 1 << 20} {
			r := api.NewDiskReader(bytes.NewReader(sent(t, content, piece, nil)))
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("seed %d in pieces of %d: got %d bytes, %v; want %d", seed, piece, len(got), err, len(content))
			}
			if err := r.Rest(); err != nil {
				t.Errorf("seed %d: the whole disk came, and Rest says %v", seed, err)
			}
		}
	}
}

func TestZerosAreNotSent(t *testing.T) {
	if wire := sent(t, make([]byte, 64<<20), 256<<10, nil); len(wire) > 300 {
		t.Errorf("64 MiB of zeros took %d bytes", len(wire))
	}
}

func TestADiskThatBreaksOffIsNeverWhole(t *testing.T) {
	content := disk(3)
	wire := sent(t, content, 4096, nil)
	for cut := range len(wire) {
		if cut > 200 && cut < len(wire)-200 && cut%97 != 0 {
			continue
		}
		_, err := io.ReadAll(api.NewDiskReader(bytes.NewReader(wire[:cut])))
		if !errors.Is(err, fault.Unavailable) {
			t.Fatalf("cut after %d of %d bytes: got %v, want unavailable", cut, len(wire), err)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d of %d bytes: %v passes for the end of a disk that is too short", cut, len(wire), err)
		}
	}
}

func TestAChangedDiskIsRefused(t *testing.T) {
	wire := sent(t, bytes.Repeat([]byte("content "), 1000), 4096, nil)
	wire[100] ^= 1
	if _, err := io.ReadAll(api.NewDiskReader(bytes.NewReader(wire))); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v, want invalid", err)
	}
}

func TestTheSendersErrorArrives(t *testing.T) {
	wire := sent(t, []byte("the beginning"), 4096, fault.Stuck.Errorf("the disk cannot be read"))
	got, err := io.ReadAll(api.NewDiskReader(bytes.NewReader(wire)))
	if !errors.Is(err, fault.Stuck) || string(got) != "the beginning" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzDiskReader(f *testing.F) {
	var wire bytes.Buffer
	w := api.NewDiskWriter(&wire)
	w.Write(append(make([]byte, 9000), "end"...))
	w.End(nil)
	f.Add(wire.Bytes())
	f.Add([]byte("e\x00\x00\x00\x00\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := api.NewDiskReader(bytes.NewReader(wire))
		n, err := io.Copy(io.Discard, io.LimitReader(r, 1<<24))
		if err == nil && n < 1<<24 && r.Rest() != nil {
			t.Error("a disk that came whole is not whole")
		}
	})
}
