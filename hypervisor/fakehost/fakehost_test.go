package fakehost_test

import (
	"os"
	"path/filepath"
	"testing"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
	"consort.dev/consort/hypervisor/fakehost"
)

func bench(t *testing.T, h driver.Host) drivertest.Bench {
	dir := t.TempDir()
	raw := []byte("a base")
	path := filepath.Join(dir, "base")
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	return drivertest.Bench{
		Host: h, Base: driver.Content{Path: path, Format: estate.Raw, Size: 512}, Raw: raw, Dir: dir, OS: true,
		Reopen: func() (driver.Host, error) { return h, nil },
	}
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench { return bench(t, fakehost.New(fakehost.Options{})) })
}

func TestConformanceWhereAbilitiesAreLacking(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench {
		return bench(t, fakehost.Lacking(fakehost.New(fakehost.Options{}), estate.CanHotplug, estate.CanTransfer))
	})
}
