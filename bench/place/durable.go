package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/plane/control"
	"consort.dev/consort/plane/control/place"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/plane/store/etcd"
)

// durable has the product's own placer place machines through the etcd inside,
// with an event for each, and returns how many were stored a second from the
// first to the last.
func durable(ctx context.Context, dir string, hosts, machines int) (float64, error) {
	dir, err := os.MkdirTemp(dir, "place-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	kv, err := etcd.Embed(ctx, dir)
	if err != nil {
		return 0, err
	}
	s := store.New(kv, store.Options{})
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	// The store's watch begins before what is furnished: it would replay all
	// of that to us otherwise, which is more than it keeps.
	if _, err := s.Watch(ctx, 0, "Trial"); err != nil {
		return 0, err
	}
	if err := furnish(ctx, s, hosts, machines); err != nil {
		return 0, err
	}
	page, err := kv.List(ctx, control.Rooms, "", 1)
	if err != nil {
		return 0, err
	}
	events, err := s.Watch(ctx, page.Revision, "Machine")
	if err != nil {
		return 0, err
	}
	log := slog.New(slog.DiscardHandler)
	p := &place.Placer{Store: s, Now: time.Now, Log: log, Events: &control.Recorder{Store: s, Now: time.Now, By: "place", Log: log}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.Loops()[0].Run(ctx) // ends with the context
	}()
	defer func() { cancel(); <-ended }()
	return rate(events, machines)
}

// rate counts the machines that are placed.
func rate(events <-chan store.Event, machines int) (float64, error) {
	placed, first := map[string]bool{}, time.Time{}
	for e := range events {
		m, ok := e.Object.(*estate.Machine)
		if !ok || m.Spec.Hypervisor == "" {
			continue
		}
		if placed[m.Metadata.Name] = true; len(placed) == 1 {
			first = time.Now()
		}
		if len(placed) == machines {
			return float64(machines-1) / time.Since(first).Seconds(), nil
		}
	}
	return 0, fmt.Errorf("only %d of %d machines were placed", len(placed), machines)
}

// furnish stores hypervisors, and machines of five sizes without a place.
func furnish(ctx context.Context, s *store.Store, hosts, machines int) error {
	var edits []store.Edit
	flush := func(at int) error {
		if len(edits) < at || len(edits) == 0 {
			return nil
		}
		err := s.Commit(ctx, edits...)
		edits = edits[:0]
		return err
	}
	head := func(kind estate.Kind, project string, n int) estate.Head {
		return estate.Head{APIVersion: estate.APIVersion, Kind: kind, Metadata: estate.Metadata{Name: fmt.Sprintf("x%06d", n), Project: project}}
	}
	for i := range hosts {
		h := &estate.Hypervisor{Head: head("Hypervisor", "", i)}
		h.Status.State, h.Status.Capacity = estate.HypervisorReady, estate.Capacity{CPUs: 64, Memory: 256 * estate.GiB, Disk: estate.TiB}
		edits = append(edits, store.Create(h))
		if err := flush(200); err != nil {
			return err
		}
	}
	for i := range machines {
		m := &estate.Machine{Head: head("Machine", "default", i)}
		m.Spec.Power = estate.Off
		m.Spec.Hardware = estate.Hardware{CPUs: 2, Memory: estate.Bytes(2+i%5) * estate.GiB, Disks: []estate.Disk{{Name: "system", Image: estate.Digest(fmt.Sprintf("sha256:%064d", 1)), Grow: 4 * estate.GiB}}}
		edits = append(edits, store.Create(m))
		if err := flush(200); err != nil {
			return err
		}
	}
	return flush(0)
}
