// Package contexts proves that what is kept apart stays apart.
package contexts

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"consort.dev/consort/agent/network"
	"consort.dev/consort/test/guest"
	"consort.dev/consort/test/hostile"
)

// TestMain leaves the first thread in another network namespace, as work in a
// network does when it happens to run there: nothing may take that for the host's.
func TestMain(m *testing.M) {
	if os.Getuid() == 0 {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			log.Print("the first thread stays on the host: ", err)
		}
	}
	os.Exit(m.Run())
}

// TestNothingHostileArrives fires every class of frames out of a machine: none
// reaches a sibling, the other context or the host. Without the filters the
// same frames arrive by the thousand.
func TestNothingHostileArrives(t *testing.T) {
	guest.Needs(t, "ip", "nft", "dnsmasq")
	if err := network.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	s, err := hostile.Build(t.Context(), filepath.Join(t.TempDir(), "n"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	const each = 50
	fire := func() []hostile.Outcome {
		all, err := s.Fire(t.Context(), each)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, o := range fire() {
		if o.Passed() > 0 {
			t.Errorf("%s: of %d frames %d reached a sibling, %d the other context, %d the host, %d its end of the network", o.Class, o.Tried, o.Sibling, o.Other, o.Host, o.Gateway)
		}
	}
	if err := s.Unfilter(t.Context()); err != nil {
		t.Fatal(err)
	}
	without := fire()
	var passed, classes int64
	var all hostile.Outcome
	for _, o := range without {
		all.Sibling, all.Other, all.Host, all.Gateway = all.Sibling+o.Sibling, all.Other+o.Other, all.Host+o.Host, all.Gateway+o.Gateway
		passed += o.Passed()
		if o.Passed() >= each {
			classes++
		}
	}
	t.Logf("without filters %d frames of %d classes pass, of %d", passed, classes, len(without))
	if min(all.Sibling, all.Other, all.Host, all.Gateway) < each {
		t.Errorf("without filters %d frames reach a sibling, %d the other context, %d the host, %d its end of the network; want %d everywhere, or nobody watches there",
			all.Sibling, all.Other, all.Host, all.Gateway, each)
	}
	if len(without) < 40 || classes < 40 || passed < 40*each {
		t.Errorf("without filters %d frames of %d classes pass; want 40 of the %d classes, or the frames are no test of the filters", passed, classes, len(without))
	}
}
