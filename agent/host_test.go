package agent_test

import (
	"testing"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

func TestFreeMemoryFollowsTheMachines(t *testing.T) {
	h := newHouse(t)
	h.employ()
	h.until("the host is described", func() bool { return h.hypervisor().Free == h.hypervisor().Capacity && h.hypervisor().Free.Memory > 0 })
	whole := h.hypervisor().Free.Memory
	m := h.order(nil)
	h.until("the machine's memory is taken", func() bool { return h.hypervisor().Free.Memory == whole-estate.GiB })
	h.must(h.store.Delete(t.Context(), m.Ref(), 0))
	h.until("the memory is free again", func() bool { return h.hypervisor().Free.Memory == whole })
}

func TestATemplateTakesMemoryAndDiskOfItsOwn(t *testing.T) {
	h := newHouse(t)
	h.employ()
	h.until("the host is described", func() bool { return h.hypervisor().Free.Memory > 0 })
	whole := h.hypervisor().Free
	m := h.order(clone)
	h.running()
	h.until("machine and template are counted", func() bool { return h.hypervisor().Free.Memory == whole.Memory-2*estate.GiB })
	h.must(h.store.Delete(t.Context(), m.Ref(), 0))
	h.until("only the template is left", func() bool {
		free := h.hypervisor().Free
		return free.Memory == whole.Memory-estate.GiB && free.Disk == whole.Disk-estate.GiB
	})
}

func TestAHostHasJoinedOnlyOnceItWasDescribed(t *testing.T) {
	h := newHouse(t)
	path := "/status"
	h.broken.Store(&path)
	h.employ()
	h.until("it is known", func() bool {
		_, err := store.Get[estate.Hypervisor](t.Context(), h.store, "", "here")
		return err == nil
	})
	h.broken.Store(nil)
	h.until("it is described", func() bool {
		s := h.hypervisor()
		return s.State == estate.HypervisorReady && len(s.Capabilities) > 0 && s.Is(estate.Ready)
	})
}

func TestAnUnchangedHostIsNotWrittenAgain(t *testing.T) {
	h := newHouse(t)
	kill := h.employ()
	h.until("the host is described", func() bool { return h.hypervisor().State == estate.HypervisorReady })
	version := func() int64 {
		v, err := store.Get[estate.Hypervisor](t.Context(), h.store, "", "here")
		h.must(err)
		return v.Metadata.Version
	}
	before := version()
	h.order(nil)
	h.running()
	h.until("the memory is told", func() bool { return version() > before })
	before = version()
	h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
	h.until("it is off", func() bool { return h.status().Power == estate.Off })
	h.want(func(s *estate.MachineSpec) { s.Power = estate.On }) // described anew, and as before
	h.running()
	kill()
	if got := version(); got != before {
		t.Errorf("version %d, want %d", got, before)
	}
	h.employ()
	h.until("it joined again", func() bool { return time.Since(h.hypervisor().Seen) < time.Minute && version() > before })
}
