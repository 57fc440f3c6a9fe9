package agent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func someVolume() *estate.Volume {
	return &estate.Volume{
		Head: estate.Head{Metadata: estate.Metadata{Name: "home-ana-work", UID: someID}},
		Spec: estate.VolumeSpec{Size: 32 * estate.MiB},
	}
}

func TestAVolumeIsMadeOnceWithAFileSystem(t *testing.T) {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("mkfs.ext4 is not installed")
	}
	v, err := openVolumes(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first, err := v.content(t.Context(), someVolume())
	if err != nil {
		t.Fatal(err)
	}
	if first.Format != estate.Raw || first.Size != 32*estate.MiB {
		t.Errorf("content = %+v", first)
	}
	if out, err := exec.Command("e2fsck", "-fn", first.Path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	if err := os.WriteFile(first.Path, []byte("a person's files"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := v.content(t.Context(), someVolume())
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(again.Path); string(b) != "a person's files" {
		t.Errorf("the second use holds %q", b)
	}
}

func TestALostVolumeIsNotReplacedByAnEmptyOne(t *testing.T) {
	v, err := openVolumes(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	vol := someVolume()
	vol.Status.Hypervisor = "here"
	_, err = v.content(t.Context(), vol)
	if !errors.Is(err, fault.Stuck) || !strings.Contains(err.Error(), "backup") {
		t.Errorf("content = %v", err)
	}
}

func TestAnUnfinishedVolumeIsSwept(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, someID+".raw.new")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openVolumes(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("half a volume is still there")
	}
}

// TestAMachinesUserReachesItsVolume looks at the folders on the way: some
// hypervisors open disks by their paths, as a user of their own.
func TestAMachinesUserReachesItsVolume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	a, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]os.FileMode{dir: 0o711, a.volumes.dir: 0o711, a.records.dir: 0o700} {
		info, err := os.Stat(at)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s is open as %o, want %o", at, got, want)
		}
	}
}
