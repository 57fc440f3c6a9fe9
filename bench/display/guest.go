package main

import (
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
)

// sector is testdata/guest.s, assembled.
//
//go:embed testdata/guest.bin
var sector []byte

// writeGuest writes the guest's disk.
func writeGuest(path string) error {
	disk := make([]byte, 1<<20)
	copy(disk, sector)
	return os.WriteFile(path, disk, 0o644)
}

// alone is a QEMU that nothing of ours looks after, with the devices that the
// product gives its own.
type alone struct {
	cmd    *exec.Cmd
	screen string // a socket
}

func startAlone(ctx context.Context, dir, disk string) (*alone, error) {
	a := &alone{screen: filepath.Join(dir, "alone.vnc")}
	a.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-accel", "tcg,thread=multi",
		"-cpu", "max", "-smp", "1", "-m", "32", "-device", "VGA", "-display", "none", "-vnc", "unix:"+a.screen+",share=force-shared",
		"-drive", "if=none,id=d,format=raw,readonly=on,file="+disk, "-device", "virtio-blk-pci,drive=d",
		"-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci", "-device", "virtio-rng-pci")
	a.cmd.Stderr = os.Stderr
	return a, a.cmd.Start()
}

func (a *alone) stop() {
	_ = a.cmd.Process.Kill() // it may have ended
	_ = a.cmd.Wait()         // by the kill
}
