package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestArgv(t *testing.T) {
	base := driver.Content{Path: "/content/base", Format: estate.QCOW2, Size: estate.GiB}
	vmdk := driver.Content{Path: "/content/old", Format: estate.VMDK, Size: estate.GiB}
	home := driver.Content{Path: "/volumes/home", Format: estate.Raw, Size: estate.GiB}
	small := driver.Definition{ID: someID, Name: "desk, one", CPUs: 1, Memory: 32 * estate.MiB,
		Disks: []driver.Disk{{Name: "root", Base: &base}}}
	large := driver.Definition{ID: someID, Name: "desk", CPUs: 4, Memory: 4 * estate.GiB,
		Firmware: estate.UEFI, Screen: estate.Screen{Width: 3840, Height: 2160},
		Disks: []driver.Disk{{Name: "root", Base: &vmdk}, {Name: "home", File: &home}, {Name: "l-1", File: &home, ReadOnly: true}},
		NICs: []driver.NIC{{MAC: "02:00:00:00:00:01", Netns: "/run/netns/a", Tap: "tap0"},
			{MAC: "02:00:00:00:00:02", Socket: "/run/net"}}}
	carded := small
	carded.NICs = []driver.NIC{{MAC: "02:00:00:00:00:01", Tap: "tap0"}, {MAC: "02:00:00:00:00:02", Tap: "tap1"}}
	unplugged := small
	unplugged.NICs = []driver.NIC{{MAC: "02:00:00:00:00:09", Unplugged: true}}
	raw := func(fd int) []diskFile { return []diskFile{{fd: fd, format: estate.Raw}} }
	for name, l := range map[string]launch{
		"sealed": {def: small, run: "/run/m", accel: "tcg,thread=multi,tb-size=256", cpu: "max,-smap", key: 5,
			disks: [][]diskFile{{{fd: 3, format: estate.QCOW2, sealed: true}, {fd: 4, format: estate.QCOW2}}}},
		"small": {def: small, run: "/run/m", accel: "tcg,thread=multi,tb-size=256", cpu: "max,-smap",
			disks: [][]diskFile{{{fd: 3, format: estate.QCOW2}, {fd: 4, format: estate.QCOW2}}}},
		"large": {def: large, run: "/run/m", accel: "kvm", cpu: "host", code: 7, vars: 8, built: 2, nics: []int{9, 10},
			disks: [][]diskFile{{{fd: 3, format: estate.QCOW2}, {fd: 4, format: estate.VMDK}}, raw(5), raw(6)}},
		"imported": {def: small, run: "/run/m", accel: "kvm", cpu: "host", disks: [][]diskFile{raw(3)}},
		"snapshots": {def: small, run: "/run/m", accel: "kvm", cpu: "host",
			disks: [][]diskFile{{{fd: 3, format: estate.QCOW2}, {fd: 4, format: estate.QCOW2}, {fd: 5, format: estate.Raw}}}},
		"clone": {def: carded, run: "/run/m", accel: "kvm", cpu: "host", ram: 8, built: 1, joined: []int{2}, nics: []int{9, 10},
			disks: [][]diskFile{{{fd: 3, format: estate.QCOW2}, {fd: 4, format: estate.QCOW2}, {fd: 5, format: estate.QCOW2}}}},
		"template": {def: unplugged, built: 1, nics: []int{0}, run: "/run/m", accel: "kvm", cpu: "host", memory: 7, ram: 8, shared: true,
			disks: [][]diskFile{{{fd: 3, format: estate.QCOW2}, {fd: 4, format: estate.QCOW2}}}},
	} {
		if l.key == 0 {
			l.serial = 30
		}
		t.Run(name, func(t *testing.T) {
			got := strings.ReplaceAll(strings.Join(l.argv(), "\n"), "\n-", "\n\n-") + "\n"
			path := filepath.Join("testdata", name+".argv")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("argv differs from %s; run with -update and read the difference:\n%s", path, got)
			}
		})
	}
}

// What a guest's owner writes reaches the command line in a name only, and must
// stay there.
func TestANameStaysOneWord(t *testing.T) {
	l := launch{def: driver.Definition{ID: someID, Name: "a,debug-threads=on\x00-monitor\x00stdio", CPUs: 1, Memory: 32 * estate.MiB}}
	for _, word := range l.argv() {
		if word == "-monitor" || word == "stdio" {
			t.Fatalf("a name became the word %q", word)
		}
		if strings.Contains(word, "a,debug") {
			t.Errorf("a name became the option %q", word)
		}
	}
}
