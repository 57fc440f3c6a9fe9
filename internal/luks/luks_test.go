package luks

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestQEMUOpensWhatWasSealed has a reader of LUKS that is not ours read it, and
// refuse another key.
func TestQEMUOpensWhatWasSealed(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("no qemu-img: ", err)
	}
	dir := t.TempDir()
	content := make([]byte, 300<<10)
	rand.Read(content)
	k, other := NewKey(), NewKey()
	sealed := seal(t, dir, &k, content)

	got, text := open(t, tool, dir, sealed, &k)
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back, want the %d that were sealed; %s", len(got), len(content), text)
	}
	if got, _ := open(t, tool, dir, sealed, &other); got != nil {
		t.Error("it opens with another key")
	}
	raw, err := os.ReadFile(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, content[:32]) || bytes.Contains(raw, k[:]) {
		t.Error("the file holds its content or its key as they are")
	}
}

// TestTheSameIsSealedOtherwise wants nothing to follow from one file about another.
func TestTheSameIsSealedOtherwise(t *testing.T) {
	dir, k := t.TempDir(), NewKey()
	content := bytes.Repeat([]byte{7}, 4096)
	var seen []byte
	for range 2 {
		b, err := os.ReadFile(seal(t, dir, &k, content))
		if err != nil {
			t.Fatal(err)
		}
		if payload := b[Payload:]; bytes.Equal(payload, seen) || bytes.Equal(payload[:512], payload[512:1024]) {
			t.Error("equal content is sealed to equal bytes")
		}
		seen = b[Payload:]
	}
}

func TestAForgottenKeyIsGone(t *testing.T) {
	k := NewKey()
	id, other := k.ID(), NewKey()
	if k.ID() != id || other.ID() == id || len(id) != 64 {
		t.Errorf("a key's name is %q, then %q, and another's %q", id, k.ID(), other.ID())
	}
	k.Forget()
	if k != (Key{}) {
		t.Error("it is still there")
	}
}

func seal(t *testing.T, dir string, k *Key, content []byte) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "sealed")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Seal(f, k, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func open(t *testing.T, tool, dir, sealed string, k *Key) (content []byte, text string) {
	t.Helper()
	key, plain := filepath.Join(dir, "key"), filepath.Join(dir, "plain")
	os.Remove(plain)
	if err := os.WriteFile(key, k[:], 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "convert", "--object", "secret,id=k,file="+key, "--image-opts",
		"driver=luks,key-secret=k,file.filename="+sealed, "-O", "raw", plain).CombinedOutput()
	if err != nil {
		return nil, string(out)
	}
	b, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	return b, string(out)
}

func BenchmarkSeal(b *testing.B) {
	k, content := NewKey(), make([]byte, 196<<10)
	for b.Loop() {
		f, err := os.CreateTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		if err := Seal(f, &k, bytes.NewReader(content)); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
