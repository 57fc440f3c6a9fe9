package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/hypervisor/remote"
	"consort.dev/consort/test/guest"
)

// TestMain is the provider itself when it is started with its flags.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--dir" {
		main()
		return
	}
	os.Exit(m.Run())
}

// provider starts the provider in a process of its own and returns its driver;
// kill kills it as a crash would.
func provider(t *testing.T, dir string) (h driver.Host, kill func()) {
	t.Helper()
	socket := filepath.Join(dir, "s")
	os.Remove(socket) // of one that was killed
	cmd := exec.Command("/proc/self/exe", "--dir", filepath.Join(dir, "m"), "--socket", socket)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed; Wait reaps it
	}
	t.Cleanup(kill)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := remote.Dial(t.Context(), socket)
		if err == nil {
			t.Cleanup(c.Close)
			return c.Host(), kill
		}
		if !errors.Is(err, fault.Unavailable) || time.Now().After(end) {
			t.Fatalf("the provider does not answer: %v; it says %q", err, said.String())
		}
	}
}

// bench is a bench with a provider whose machines end with the test.
func bench(t *testing.T, base driver.Content) drivertest.Bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "uml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, kill := provider(t, dir)
	b := drivertest.Bench{Host: h, Base: base, Dir: dir}
	b.Reopen = func() (driver.Host, error) {
		kill()
		h, kill = provider(t, dir)
		return h, nil
	}
	t.Cleanup(func() {
		// Directly, for the provider of a failed test may not answer.
		kill()
		ctx := context.Background() // that of the test has ended
		direct, err := Open(ctx, filepath.Join(dir, "m"))
		if err != nil {
			t.Error(err)
			return
		}
		defer direct.lock.Close()
		all, err := direct.List(ctx)
		for _, m := range all {
			err = errors.Join(err, direct.Delete(ctx, m.ID))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestConformance(t *testing.T) {
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("user-mode-linux is not installed: make test-deps")
	}
	base := tiny(t)
	raw, err := os.ReadFile(base.Path)
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Run(t, func(t *testing.T) drivertest.Bench {
		b := bench(t, base)
		b.Raw, b.Says = raw, "UML is up"
		return b
	})
}

// TestConformanceWithAGuest boots the small desktop, without its screen.
func TestConformanceWithAGuest(t *testing.T) {
	small := guest.Small(t)
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("user-mode-linux is not installed: make test-deps")
	}
	drivertest.RunOS(t, func(t *testing.T) drivertest.Bench {
		b := bench(t, driver.Content{Path: small.Path, Format: small.Format, Size: small.Size})
		b.OS, b.Boot, b.Memory = true, 3*time.Minute, 256*estate.MiB
		return b
	})
}

// tiny returns a file system that holds one program, which the kernel starts
// first: it says that it is up, and then what it hears.
func tiny(t *testing.T) driver.Content {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, sub := range []string{"sbin", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "sbin/init"), initProgram(t), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "base.img")
	out, err := exec.Command("mke2fs", "-q", "-t", "ext2", "-d", root, path, "1m").CombinedOutput()
	if err != nil {
		t.Fatalf("make a file system: %v: %s", err, out)
	}
	return driver.Content{Path: path, Format: estate.Raw, Size: estate.MiB}
}

// initProgram is an executable of 64 bits without libraries (elf(5)). In C:
//
//	write(1, "UML is up\n", 10);
//	for (;;) { read(0, &c, 1); write(1, &c, 1); }
func initProgram(t *testing.T) []byte {
	t.Helper()
	code, err := hex.DecodeString("b801000000bf01000000488d3525000000ba0a0000000f05" + // write
		"31c031ff488d7424f8ba010000000f05" + // read
		"b801000000bf010000000f05ebe2") // write, again
	if err != nil {
		t.Fatal(err)
	}
	const at, head = 0x400000, 64 + 56
	code = append(code, "UML is up\n"...)
	size := uint64(head + len(code))
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)  // an executable
	b = le.AppendUint16(b, 62) // for x86-64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, at+head) // entry
	b = le.AppendUint64(b, 64)      // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	b = le.AppendUint32(b, 1) // one segment to load,
	b = le.AppendUint32(b, 5) // read and run
	for _, n := range []uint64{0, at, at, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...)
}
