package libvirt

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

var update = flag.Bool("update", false, "write the goldens anew")

// The daemon's own parser accepts what the goldens hold: the suite defines
// machines of all these parts.
func TestDefinitions(t *testing.T) {
	base := driver.Content{Path: "/images/base.qcow2", Format: estate.QCOW2, Size: estate.GiB}
	def := driver.Definition{ID: "0c9e3c54-1111-4222-8333-444455556666", Name: "desk <one> & 'two'", CPUs: 2, Memory: 512 * estate.MiB,
		Screen: estate.Screen{Width: 2560, Height: 1600},
		Disks: []driver.Disk{
			{Name: "root", Base: &base}, {Name: "data", Size: estate.MiB},
			{Name: "home", File: &driver.Content{Path: "/volumes/home.raw", Format: estate.Raw, Size: estate.MiB}, ReadOnly: true},
		},
		NICs: []driver.NIC{{MAC: "02:00:00:00:00:01", Bridge: "br0"}}}
	r := record{Owner: "US", Def: def, Starts: 3, Started: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC), Copies: map[string]copied{
		"root": {File: "root.qcow2", Format: estate.QCOW2, OnBase: true}, "data": {File: "data-1.raw", Format: estate.Raw},
	}}
	uefi := r
	uefi.Def.Firmware = estate.UEFI
	for name, c := range map[string]struct {
		accelerator string
		r           record
	}{"tcg": {"tcg", r}, "kvm-uefi": {"kvm", uefi}} {
		h := &Host{cfg: Config{Dir: "/m", Firmware: "/usr/share/OVMF"}, desc: driver.Description{Accelerator: c.accelerator}}
		got, err := h.domain(c.r)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name+".xml")
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
			t.Errorf("%s is\n%s\nwant\n%s", golden, got, want)
		}
	}
}

func TestARecordSurvivesItsMark(t *testing.T) {
	r := record{Owner: "US", Def: driver.Definition{Name: "]]> <a b='c'> & \" \u00e4", CPUs: 1}, Starts: 7}
	got, err := parseMark(r.mark())
	if err != nil || got.Starts != 7 || !got.Def.Equal(r.Def) {
		t.Errorf("parseMark(%s) = %+v, %v", r.mark(), got, err)
	}
}

func TestPlacesHaveNames(t *testing.T) {
	for i, want := range map[int]string{0: "vda", 25: "vdz", 26: "vdaa", 51: "vdaz", 52: "vdba"} {
		if got := target(i); got != want {
			t.Errorf("target(%d) = %s, want %s", i, got, want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for text, want := range map[string]string{
		"qemu:///system": "/run/libvirt/libvirt-sock qemu:///system ",
		"qemu+unix:///session?socket=/a/b&peer=qemu%2Btls://h/system": "/a/b qemu:///session qemu+tls://h/system",
	} {
		socket, uri, peer, err := endpoint(text)
		if got := strings.Join([]string{socket, uri, peer}, " "); err != nil || got != want {
			t.Errorf("endpoint(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "qemu+ssh://host/system", "xen:///system", "qemu:///embed"} {
		if _, _, _, err := endpoint(text); err == nil {
			t.Errorf("endpoint(%q) is no error", text)
		}
	}
}
