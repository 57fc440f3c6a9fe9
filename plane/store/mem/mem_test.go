package mem_test

import (
	"testing"
	"time"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/mem"
	"consort.dev/consort/plane/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.KV { return mem.Open(mem.Options{}) })
}

func TestConformanceWithLittleHistory(t *testing.T) {
	if testing.Short() {
		t.Skip("the same again; -short is given")
	}
	storetest.Run(t, func(*testing.T) store.KV { return mem.Open(mem.Options{Kept: 64}) })
}

func TestLeasesGoByTheClockGiven(t *testing.T) {
	now := time.Unix(1000, 0)
	kv := mem.Open(mem.Options{Now: func() time.Time { return now }})
	defer kv.Close()
	id, err := kv.Lease(t.Context(), 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(1900 * time.Millisecond)
	if err := kv.KeepAlive(t.Context(), id); err != nil {
		t.Errorf("before two seconds: %v; a lease is rounded up to a second", err)
	}
	now = now.Add(2 * time.Second)
	if err := kv.KeepAlive(t.Context(), id); fault.KindOf(err) != fault.NotFound || err == nil {
		t.Errorf("after two seconds: %v, want %v", err, fault.NotFound)
	}
}
