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

// bench puts a host on trial, beside another one of its site.
func bench(t *testing.T, opt fakehost.Options) drivertest.Bench {
	dir, raw := t.TempDir(), []byte("a base")
	path := filepath.Join(dir, "base")
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	opt.Site = new(fakehost.Site)
	h := fakehost.New(opt)
	return drivertest.Bench{
		Host: h, Base: driver.Content{Path: path, Format: estate.Raw, Size: 512}, Raw: raw, Dir: dir, OS: true, Simulated: true,
		Says: fakehost.Greeting, Other: fakehost.New(opt), Stranger: h.Strangers(dir), Blind: h.Blind,
		NIC:    func() (driver.NIC, error) { return driver.NIC{MAC: "02:00:00:00:00:01", Name: "lan"}, nil },
		Reopen: func() (driver.Host, error) { return h, nil },
	}
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench { return bench(t, fakehost.Options{}) })
}

func TestConformanceOfASharedHost(t *testing.T) {
	drivertest.RunShared(t, func(t *testing.T) drivertest.Bench { return bench(t, fakehost.Options{}) })
}

func TestConformanceOfTheOtherGuestType(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench {
		b := bench(t, fakehost.Options{
			GuestTypes: []string{"round", "square"},
			Only:       map[estate.Capability][]string{estate.CanDisplay: {"round"}, estate.CanHotplug: {"square"}},
		})
		b.GuestType = "square"
		return b
	})
}

func TestConformanceWhereAbilitiesAreLacking(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Bench {
		b := bench(t, fakehost.Options{})
		b.Host = fakehost.Lacking(b.Host, estate.CanHotplug, estate.CanTransfer)
		return b
	})
}
