package image

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// kernelImage wraps a packed kernel as a kernel's build does, with two sectors
// of setup and 100 bytes between.
func kernelImage(packed string) []byte {
	img := make([]byte, 3*sector+100)
	img[setupSectors] = 2
	copy(img[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint16(img[bootProtocol:], 0x20f)
	binary.LittleEndian.PutUint32(img[payloadOffset:], 100)
	binary.LittleEndian.PutUint32(img[payloadLength:], uint32(len(packed)))
	return append(append(img, packed...), "what follows"...)
}

func TestThePackedKernelIsFound(t *testing.T) {
	got, err := payload(kernelImage("packed"))
	if err != nil || string(got) != "packed" {
		t.Errorf("got %q, %v; want what was packed", got, err)
	}
	whole := kernelImage("packed")
	old := bytes.Clone(whole)
	binary.LittleEndian.PutUint16(old[bootProtocol:], 0x207)
	for name, img := range map[string][]byte{
		"nothing":       nil,
		"a short one":   whole[:headerEnd-1],
		"no kernel":     make([]byte, 4096),
		"an old one":    old,
		"one cut short": whole[:3*sector+103],
	} {
		if got, err := payload(img); err == nil {
			t.Errorf("%s: got %q, want an error", name, got)
		}
	}
}

func TestPVTakesWhatItsLoaderUnpacks(t *testing.T) {
	for packed, want := range map[string]bool{
		"\x1f\x8b\x08": true, "\xfd7zXZ\x00\x00": true, "\x89LZO\x00": true, "\x7fELF": true,
		"\x28\xb5\x2f\xfd": false, lz4Magic: false, "": false,
	} {
		if got := grubUnpacks([]byte(packed)); got != want {
			t.Errorf("grubUnpacks(%q) = %v, want %v", packed, got, want)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(kernelImage("packed"))
	f.Fuzz(func(t *testing.T, img []byte) {
		if got, err := payload(img); err == nil && len(got) > len(img) {
			t.Errorf("%d bytes of an image of %d", len(got), len(img))
		}
	})
}
