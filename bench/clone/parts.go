package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"consort.dev/consort/bench/picture"
	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
)

// templateName is the template of this run.
const templateName = "bench"

// coldBoots boots machines one after the other, each until its desktop is drawn
// and while the others stand still, and has them all idle at last.
func (b *bench) coldBoots(ctx context.Context) error {
	for n := range b.boots {
		def := b.machine(n, "")
		if err := b.host.Define(ctx, def); err != nil {
			return err
		}
		began := time.Now()
		if err := b.host.Start(ctx, def.ID); err != nil {
			return err
		}
		if err := b.awaitDrawn(ctx, def.ID); err != nil {
			return err
		}
		b.s.Since("coldboot_first_frame", began)
		if err := b.host.Pause(ctx, def.ID); err != nil {
			return err
		}
	}
	for n := range b.boots {
		if err := b.host.Start(ctx, b.machine(n, "").ID); err != nil {
			return err
		}
	}
	pause(ctx, b.idle)
	for n := range b.boots {
		share, _, err := memory(b.machine(n, "").ID)
		if err != nil {
			return err
		}
		b.s.Add("coldboot_pss_mib", share)
	}
	for n := range b.boots {
		if err := b.host.Pause(ctx, b.machine(n, "").ID); err != nil {
			return err
		}
	}
	return nil
}

// restores saves the memory of machines and has them go on, one after the other.
// All but the first are deleted.
func (b *bench) restores(ctx context.Context) error {
	for n := range b.boots {
		id := b.machine(n, "").ID
		if err := b.host.Save(ctx, id); err != nil {
			return err
		}
		began := time.Now()
		if err := b.host.Start(ctx, id); err != nil {
			return err
		}
		b.s.Since("restore_running", began)
		if err := b.look(ctx, id); err != nil {
			return err
		}
		b.s.Since("restore_first_frame", began)
		done := b.host.Delete
		if n == 0 {
			done = b.host.Pause
		}
		if err := done(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// template makes the template of the first machine.
func (b *bench) template(ctx context.Context) error {
	id := b.machine(0, "").ID
	if err := b.host.Start(ctx, id); err != nil {
		return err
	}
	pause(ctx, 5*time.Second) // it has just gone on
	began := time.Now()
	if err := b.host.Freeze(ctx, id, templateName); err != nil {
		return err
	}
	b.s.Since("template_freeze", began)
	return nil
}

// oneByOne makes clones one after the other, each while no other runs.
func (b *bench) oneByOne(ctx context.Context) error {
	for n := range b.clones {
		def := b.machine(100+n, templateName)
		began := time.Now()
		if err := b.host.Define(ctx, def); err != nil {
			return err
		}
		b.s.Since("clone1_defined", began)
		began = time.Now()
		if err := b.host.Start(ctx, def.ID); err != nil {
			return err
		}
		b.s.Since("clone1_running", began)
		if err := b.look(ctx, def.ID); err != nil {
			return err
		}
		b.s.Since("clone1_first_frame", began)
		if err := b.host.Delete(ctx, def.ID); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) ten(ctx context.Context) error    { return b.atOnce(ctx, min(10, b.most), "clone10") }
func (b *bench) thirty(ctx context.Context) error { return b.atOnce(ctx, b.most, "clone30") }

// atOnce starts clones at once, waits until the last is drawn, and measures them
// when they have stood idle.
func (b *bench) atOnce(ctx context.Context, count int, name string) error {
	began := time.Now()
	var all sync.WaitGroup
	errs := make([]error, count)
	took := make([]time.Duration, count)
	for n := range count {
		all.Go(func() {
			def := b.machine(200+n, templateName)
			if errs[n] = b.host.Define(ctx, def); errs[n] == nil {
				errs[n] = b.host.Start(ctx, def.ID)
			}
			if errs[n] == nil {
				errs[n] = b.look(ctx, def.ID)
			}
			took[n] = time.Since(began)
		})
	}
	all.Wait()
	b.s.Since(name+"_all_drawn", began)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, d := range took {
		b.s.Add(name+"_first_frame", float64(d.Microseconds())/1000)
	}
	pause(ctx, b.idle)
	return b.weigh(ctx, count, name)
}

// weigh adds up the memory of clones and deletes them.
func (b *bench) weigh(ctx context.Context, count int, name string) error {
	var share, dirty float64
	for n := range count {
		id := b.machine(200+n, templateName).ID
		s, d, err := memory(id)
		if err != nil {
			return err
		}
		share, dirty = share+s, dirty+d
		if err := b.host.Delete(ctx, id); err != nil {
			return err
		}
	}
	b.s.Add(name+"_pss_mib", share)
	b.s.Add(name+"_private_dirty_mib", dirty)
	all, err := b.host.Templates(ctx)
	if err == nil && len(all) == 1 {
		// Its pages that no clone has read are in nobody's share.
		b.s.Add("template_mib", float64(all[0].Size)/float64(estate.MiB))
	}
	return err
}

// awaitDrawn looks at the screen until the desktop is drawn.
func (b *bench) awaitDrawn(ctx context.Context, id estate.MachineID) error {
	for end := time.Now().Add(10 * time.Minute); ; {
		err := b.look(ctx, id)
		if err == nil || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// look reads one whole picture as a viewer does, which must show the desktop.
func (b *bench) look(ctx context.Context, id estate.MachineID) error {
	var h driver.Displayer = b.host
	conn, err := h.Display(ctx, id)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := picture.FirstFrame(conn); err != nil {
		return fmt.Errorf("machine %s: %w", id, err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
