package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/guest/qga"
	"consort.dev/consort/image"
	"consort.dev/consort/internal/qmp"
	"consort.dev/consort/test/guest"
)

// ovmf is UEFI for QEMU, from Debian's package of that name.
const ovmf = "/usr/share/OVMF/OVMF_CODE_4M.fd"

// TestAnImageBootsEverywhere builds the small desktop, or finds it built, and
// boots it by hand: with either firmware and, when CONSORT_TEST_LONG is set, on
// the disks other hypervisors have.
func TestAnImageBootsEverywhere(t *testing.T) {
	content := guest.Small(t)
	store, err := image.Open(filepath.Join(guest.Cache(t), "images"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := image.Build(t.Context(), guest.Recipe(t), store, image.Options{Report: func(w estate.Work) { t.Errorf("it was built again: %+v", w) }})
	if err != nil || again.Digest != content.Digest {
		t.Errorf("the same recipe gave %s, %v, want %s", again.Digest, err, content.Digest)
	}
	for _, m := range []struct {
		name string
		long bool
		args []string
	}{
		{"BIOS", false, []string{"-device", "virtio-blk-pci,drive=root"}},
		{"UEFI", false, []string{"-device", "virtio-blk-pci,drive=root", "-drive", "if=pflash,format=raw,readonly=on,file=" + ovmf}},
		{"SATA", true, []string{"-device", "ide-hd,drive=root,bus=ide.0"}},
		{"NVMe", true, []string{"-device", "nvme,drive=root,serial=root"}},
		{"PVSCSI", true, []string{"-device", "pvscsi", "-device", "scsi-hd,drive=root"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			if m.long && os.Getenv("CONSORT_TEST_LONG") == "" {
				t.Skip("set CONSORT_TEST_LONG=1 to boot from this disk too")
			}
			boot(t, content, m.args)
		})
	}
}

// boot runs a machine on an overlay of the content until its desktop is drawn
// and looks whether the screen shows one.
func boot(t *testing.T, content image.Entry, args []string) {
	dir, err := os.MkdirTemp("", "boot") // a short path, for the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	overlay := filepath.Join(dir, "disk")
	if out, err := exec.Command("qemu-img", "create", "-f", "qcow2", "-b", content.Path, "-F", string(content.Format), overlay).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64", append([]string{"-nodefaults", "-machine", "q35", "-accel", "tcg,thread=multi",
		"-smp", "2", "-m", "512", "-display", "none", "-device", "VGA", "-qmp", "unix:" + dir + "/qmp,server=on,wait=off",
		"-drive", "if=none,id=root,format=qcow2,file=" + overlay, "-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + dir + "/agent", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
	}, args...)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	agent := qga.New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", dir+"/agent")
	})
	defer agent.Close()
	for {
		out, err := agent.Run(t.Context(), []string{"test", "-e", "/run/consort/desktop"}, nil)
		if err == nil && out.Exit == 0 {
			break
		}
		if time.Since(began) > 4*time.Minute {
			t.Fatalf("no desktop after %s: %v, exit %d\n%s", time.Since(began), err, out.Exit, &said)
		}
		<-time.After(300 * time.Millisecond)
	}
	t.Logf("drawn after %.1f s", time.Since(began).Seconds())
	if n := colours(t, dir); n < 20 {
		t.Errorf("the screen shows %d colours, want those of a desktop with text", n)
	}
}

// colours counts the colours on the machine's screen.
func colours(t *testing.T, dir string) int {
	t.Helper()
	monitor, err := qmp.Dial(t.Context(), dir+"/qmp")
	if err != nil {
		t.Fatal(err)
	}
	defer monitor.Close()
	shot := filepath.Join(dir, "screen")
	if err := monitor.Execute(t.Context(), "screendump", map[string]any{"filename": shot}, new(json.RawMessage)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(shot)
	if err != nil {
		t.Fatal(err)
	}
	var width, height, depth int
	if _, err := fmt.Sscanf(string(data[:min(64, len(data))]), "P6\n%d %d\n%d", &width, &height, &depth); err != nil || len(data) < 3*width*height {
		t.Fatalf("the screen is no picture: %v", err)
	}
	seen := map[[3]byte]bool{}
	for p := data[len(data)-3*width*height:]; len(p) >= 3; p = p[3:] {
		seen[[3]byte(p)] = true
	}
	return len(seen)
}
