package xen

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// awaiting returns a machine whose two disks are on their way here.
func awaiting(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	h := &host{cfg: Config{Dir: dir, SaveDir: dir, Model: "/nowhere"}, desc: driver.Description{GuestTypes: []string{pvh}}}
	m := h.newMachine("0a000000-0000-4000-8000-000000000001")
	def := driver.Definition{ID: m.id, Disks: []driver.Disk{{Name: "root", Size: 3 * estate.MiB}, {Name: "data", Size: 512}}}
	if err := m.make(t.Context(), def, record{Def: def, Arriving: "token"}); err != nil {
		t.Fatal(err)
	}
	return m
}

// send gives the machine what another host says.
func send(t *testing.T, m *machine, says func(*trip) error) error {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	got := make(chan error, 1)
	go func() {
		defer far.Close()
		got <- m.fill(far, bufio.NewReader(far))
	}()
	err := says(&trip{m: m, conn: near, sent: map[string][]digest{}})
	if err == nil {
		err = json.NewEncoder(near).Encode(message{Go: true})
	}
	if filled := <-got; filled != nil {
		return filled
	}
	return err
}

// TestDisksAreCarriedInStrokes carries a disk twice, and the second time only
// what has changed, also where that is zero now.
func TestDisksAreCarriedInStrokes(t *testing.T) {
	m := awaiting(t)
	from := filepath.Join(t.TempDir(), "disk")
	disk := make([]byte, 3<<20)
	copy(disk, "at the beginning")
	copy(disk[2<<20:], "at the end")
	carried := func(tr *trip) error {
		if err := os.WriteFile(from, disk, 0o600); err != nil {
			return err
		}
		return tr.disk(t.Context(), "root", from)
	}
	err := send(t, m, func(tr *trip) error {
		if err := carried(tr); err != nil {
			return err
		}
		clear(disk[:100])
		copy(disk[1<<20:], "in the middle")
		return carried(tr)
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(m.dir, "root.raw"))
	if err != nil || !bytes.Equal(got, disk) {
		t.Errorf("the disk arrives otherwise than it left: %v", err)
	}
}

// TestUnchangedChunksStay shows that a disk of zeros, and a second stroke
// without a change, send nothing.
func TestUnchangedChunksStay(t *testing.T) {
	from := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(from, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := &trip{sent: map[string][]digest{}} // without a connection: a piece would panic
	for range 2 {
		if err := tr.disk(t.Context(), "root", from); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPiecesThatFitNowhereAreRefused is about a host that lies.
func TestPiecesThatFitNowhereAreRefused(t *testing.T) {
	for _, q := range []message{
		{Disk: "root", At: 3<<20 - 1, Len: 2},
		{Disk: "data", At: 512, Len: 1},
		{Disk: "root", At: -1, Len: 1},
		{Disk: "root", Len: chunk + 1},
		{Disk: "root", Len: -1},
		{Disk: "../../etc/passwd", Len: 1},
	} {
		err := send(t, awaiting(t), func(tr *trip) error { return json.NewEncoder(tr.conn).Encode(q) })
		if err == nil || !strings.Contains(err.Error(), " at ") {
			t.Errorf("%+v: %v, want a refusal", q, err)
		}
	}
}

// TestMemoryGetsTheDefinitionOfItsNewHost reads the file that libvirt will read.
func TestMemoryGetsTheDefinitionOfItsNewHost(t *testing.T) {
	m := awaiting(t)
	stream := bytes.Repeat([]byte("memory"), 300_000)
	stream = append(stream, make([]byte, 5<<20)...) // some of it zero, the end too
	saved := append(binary.LittleEndian.AppendUint32([]byte(memoryMagic), 7), 5, 0, 0, 0)
	saved = append(append(saved, make([]byte, 40)...), "<old>"...)
	elsewhere := &machine{id: m.id, host: &host{cfg: Config{SaveDir: t.TempDir()}}}
	if err := os.WriteFile(elsewhere.memory(), append(saved, stream...), 0o600); err != nil {
		t.Fatal(err)
	}
	err := send(t, m, func(tr *trip) error {
		tr.m = elsewhere
		return tr.memory(t.Context())
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(m.memory())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head, err := readHead(f)
	if err != nil || head.Version != 7 {
		t.Fatalf("the head reads %+v, %v; want version 7", head, err)
	}
	rest, err := os.ReadFile(m.memory())
	if err != nil {
		t.Fatal(err)
	}
	xml, got := rest[64:64+head.XML], rest[64+head.XML:]
	if want, _ := m.definition(); string(xml) != want+"\x00" {
		t.Errorf("the definition in it is %q, want %q", xml, want)
	}
	if !bytes.Equal(got, stream) {
		t.Errorf("%d bytes of memory arrive otherwise than the %d that left", len(got), len(stream))
	}
}

func TestOtherSavedMemoryIsRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"another magic": append([]byte("libvirt-part\n \x00 \r"), make([]byte, 48)...),
		"cut short":     []byte(memoryMagic),
		"too much XML":  append(append([]byte(memoryMagic), 1, 0, 0, 0, 255, 255, 255, 255), make([]byte, 40)...),
	} {
		if _, err := readHead(bytes.NewReader(data)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
