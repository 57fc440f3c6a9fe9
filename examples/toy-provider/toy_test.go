package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/hypervisor/remote"
)

func bench(t *testing.T) drivertest.Bench {
	h := &host{dir: t.TempDir()}
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, make([]byte, 512), 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		all, _ := h.List(context.Background())
		for _, m := range all {
			h.Delete(context.Background(), m.ID)
		}
	})
	return drivertest.Bench{
		Host: h, Base: driver.Content{Path: base, Format: estate.Raw, Size: 512}, Dir: t.TempDir(), Simulated: true,
		Reopen: func() (driver.Host, error) { return &host{dir: h.dir}, nil },
	}
}

func TestConformance(t *testing.T) { drivertest.Run(t, bench) }

// TestConformanceOverASocket drives it as Consort does.
func TestConformanceOverASocket(t *testing.T) {
	drivertest.RunShared(t, func(t *testing.T) drivertest.Bench {
		b := bench(t)
		dir, err := os.MkdirTemp("", "toy") // a socket's path is short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		l, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		go remote.Serve(t.Context(), l, b.Host) // until the test ends
		reach := func() (driver.Host, error) {
			c, err := remote.Dial(context.WithoutCancel(t.Context()), l.Addr().String())
			if err != nil {
				return nil, err
			}
			t.Cleanup(c.Close)
			return c.Host(), nil
		}
		if b.Host, err = reach(); err != nil {
			t.Fatal(err)
		}
		b.Reopen = reach
		return b
	})
}

func TestTheGuideHasThisProvider(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/drivers.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```go\n"+string(source)+"```\n") {
		t.Error("docs/drivers.md does not hold main.go as it is; copy it there")
	}
}
