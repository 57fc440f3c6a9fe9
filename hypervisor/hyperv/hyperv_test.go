package hyperv

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
)

// config returns how the fake service is reached.
func config(t *testing.T, f *fakeService) Config {
	t.Helper()
	dir := t.TempDir()
	ca, credentials := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "credentials")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	for path, text := range map[string]string{ca: string(cert), credentials: fakeUser + "\n" + fakePassword + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Config{Endpoint: f.server.URL + "/wsman?ca=" + ca, Credentials: credentials, Dir: filepath.Join(dir, "passing")}
}

func open(t *testing.T, cfg Config) *Host {
	t.Helper()
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// base writes a disk that the suite may begin machines with.
func base(t *testing.T) (driver.Content, []byte) {
	t.Helper()
	raw := bytes.Repeat([]byte("a base. "), 512)
	path := filepath.Join(t.TempDir(), "base.img")
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	return driver.Content{Path: path, Format: estate.Raw, Size: estate.Bytes(len(raw))}, raw
}

func bench(t *testing.T) drivertest.Bench {
	m := newModel(t)
	cfg := config(t, newFakeService(t, m))
	h := open(t, cfg)
	t.Cleanup(func() { h.Close() })
	c, raw := base(t)
	return drivertest.Bench{
		Host: h, Base: c, Raw: raw, Dir: t.TempDir(), Simulated: true, Stranger: m.stranger, Blind: m.blind, Read: m.readDisk,
		Reopen: func() (driver.Host, error) {
			other := cfg
			other.Dir = t.TempDir()
			again, err := Open(t.Context(), other)
			if err == nil {
				t.Cleanup(func() { again.Close() })
			}
			return again, err
		},
	}
}

func TestConformance(t *testing.T) { drivertest.RunShared(t, bench) }

func TestAGuestThatGoesIsNotWaitedForLonger(t *testing.T) {
	b := bench(t)
	ctx := t.Context()
	const id = estate.MachineID("0a000000-0000-4000-8000-000000000001")
	def := driver.Definition{ID: id, CPUs: 1, Memory: 32 * estate.MiB, Disks: []driver.Disk{{Name: "root", Base: &b.Base}}}
	if err := b.Host.Define(ctx, def); err != nil {
		t.Fatal(err)
	}
	if err := b.Host.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := b.Host.Stop(ctx, id, time.Minute); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("Stop took %v, want no more than the guest did", took)
	}
}
