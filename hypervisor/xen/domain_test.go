package xen

import (
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestDefinitions holds libvirt's XML to files that a person has read.
func TestDefinitions(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model")
	if err := os.WriteFile(model, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	base := driver.Content{Path: "/srv/base.qcow2", Format: estate.QCOW2, Size: estate.GiB}
	home := driver.Content{Path: "/srv/home.img", Format: estate.Raw, Size: estate.MiB}
	def := driver.Definition{
		ID: "0a000000-0000-4000-8000-000000000001", Name: "two\nwords & more", CPUs: 2, Memory: 512 * estate.MiB,
		Disks: []driver.Disk{{Name: "root", Base: &base}, {Name: "home", File: &home}, {Name: "tools", File: &home, ReadOnly: true}},
		NICs:  []driver.NIC{{MAC: "02:00:00:00:00:01", Bridge: "br0"}},
	}
	for _, c := range []struct{ name, guestType, model string }{
		{"pvh", "", model},
		{"pv", pv, model},
		{"no-channel", pvh, "/nowhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &host{cfg: Config{Loaders: "/loaders", Model: c.model}, desc: driver.Description{GuestTypes: []string{pvh, pv}}}
			def.GuestType = c.guestType
			got, err := h.domain(record{Def: def, Files: map[string]string{"root": "root.raw"}}, "/m/id", "/run/id").Marshal()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", c.name+".xml")
			if *update {
				if err := os.WriteFile(golden, []byte(got+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got+"\n" != string(want) {
				t.Errorf("%s is not as in %s:\n%s", c.name, golden, got)
			}
		})
	}
}

func TestLettersOfDisks(t *testing.T) {
	for i, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 701: "zz", 702: "aaa"} {
		if got := letters(i); got != want {
			t.Errorf("letters(%d) = %q, want %q", i, got, want)
		}
	}
}

// TestMachinesOfOthers shows what is read from their definitions, and which of
// them cannot become ours.
func TestMachinesOfOthers(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, os, disk, obstacle string }{
		{"pv", "linux", `<driver name='phy' type='raw'/><source file='` + disk + `'/>`, ""},
		{"pvh", "xenpvh", `<driver name='phy' type='raw'/><source file='` + disk + `'/>`, ""},
		{"hvm", "hvm", `<driver name='phy' type='raw'/><source file='` + disk + `'/>`, "neither a PV nor a PVH"},
		{"another format", "linux", `<driver name='qemu' type='qcow2'/><source file='` + disk + `'/>`, "not declared to be raw"},
		{"no format", "linux", `<source file='` + disk + `'/>`, "not declared to be raw"},
		{"no file", "linux", `<driver name='phy' type='raw'/><source file='` + disk + `.gone'/>`, "no file of this host"},
		{"a device", "linux", `<driver name='phy' type='raw'/><source file='/dev/null'/>`, "no file of this host"},
	} {
		d, err := parse(`<domain type='xen'><name>theirs</name><uuid>0a000000-0000-4000-8000-000000000001</uuid>
			<memory unit='KiB'>65536</memory><vcpu>3</vcpu><os><type>` + c.os + `</type></os>
			<devices><disk type='file' device='disk'>` + c.disk + `<target dev='xvdb' bus='xen'/><readonly/></disk>
			<interface type='bridge'><mac address='02:00:00:00:00:07'/><source bridge='br7'/></interface></devices></domain>`)
		if err != nil {
			t.Fatal(err)
		}
		def, obstacle := read(d)
		if (obstacle == "") != (c.obstacle == "") || !strings.Contains(obstacle, c.obstacle) {
			t.Errorf("%s: the obstacle is %q, want %q", c.name, obstacle, c.obstacle)
		}
		if def.Name != "theirs" || def.CPUs != 3 || def.Memory != 64*estate.MiB || def.NICs[0] != (driver.NIC{MAC: "02:00:00:00:00:07", Bridge: "br7"}) {
			t.Errorf("%s: read as %+v", c.name, def)
		}
		if got := def.Disks[0]; got.Name != "xvdb" || !got.ReadOnly || obstacle == "" && (got.File.Path != disk || got.File.Size != 4096) {
			t.Errorf("%s: disk read as %+v, %+v", c.name, got, got.File)
		}
	}
}

func TestResizedDefinition(t *testing.T) {
	text, err := resized(`<domain type='xen'><memory unit='MiB'>64</memory><currentMemory unit='MiB'>32</currentMemory><vcpu current='1'>2</vcpu><title>kept</title></domain>`, 4, estate.GiB)
	if err != nil {
		t.Fatal(err)
	}
	d, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d.VCPU.Value != 4 || d.VCPU.Current != 0 || d.Memory.Value != 1<<20 || d.Memory.Unit != "KiB" || d.CurrentMemory != nil || d.Title != "kept" {
		t.Errorf("resized to %s", text)
	}
}

// TestWhatCannotBeMade shows that it is refused before anything is done.
func TestWhatCannotBeMade(t *testing.T) {
	h := &host{desc: driver.Description{GuestTypes: []string{pvh}}}
	qcow2 := driver.Content{Format: estate.QCOW2}
	for name, def := range map[string]driver.Definition{
		"UEFI":                    {Firmware: estate.UEFI},
		"a type it lacks":         {GuestType: pv},
		"a file that is not raw":  {Disks: []driver.Disk{{Name: "home", File: &qcow2}}},
		"a card without a bridge": {NICs: []driver.NIC{{Tap: "tap0"}}},
	} {
		if err := h.Define(t.Context(), def); !errors.Is(err, fault.Unsupported) {
			t.Errorf("%s: Define = %v, want unsupported", name, err)
		}
	}
}

// TestStore speaks the store's protocol with a store of our own.
func TestStore(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   uint32
		text   string
		refuse bool
	}{{"written", storeWrite, "OK\x00", false}, {"refused", storeError, "ENOENT\x00", true}} {
		near, far := net.Pipe()
		got := make(chan string, 1)
		go func() {
			var head storeHead
			if err := binary.Read(far, binary.LittleEndian, &head); err != nil || head.Type != storeWrite {
				got <- "no write"
				far.Close()
				return
			}
			body := make([]byte, head.Length)
			io.ReadFull(far, body)
			got <- string(body)
			msg, _ := binary.Append(nil, binary.LittleEndian, storeHead{Type: c.kind, Length: uint32(len(c.text))})
			far.Write(append(msg, c.text...))
		}()
		_, err := exchange(near, storeWrite, "/local/domain/7/control/shutdown\x00poweroff")
		if (err != nil) != c.refuse {
			t.Errorf("%s: exchange = %v", c.name, err)
		}
		if text := <-got; text != "/local/domain/7/control/shutdown\x00poweroff" {
			t.Errorf("%s: the store was sent %q", c.name, text)
		}
	}
}
