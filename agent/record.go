package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
)

// record is what the agent remembers of a machine, whatever happens to the
// plane or to itself.
type record struct {
	ID      estate.MachineID `json:"id"`
	Project string           `json:"project"`
	Name    string           `json:"name"`
	Epoch   int64            `json:"epoch"` // the highest seen

	Template string `json:"template,omitempty"` // the host's, from which it was made here
	Identity bool   `json:"identity,omitempty"` // it was given its own since

	// What a move leaves here. A machine that came by one is never made from
	// its image again: its disks begin empty, each of its exact size.
	Arriving bool            `json:"arriving,omitempty"` // it is prepared, and not placed here yet
	Shelved  bool            `json:"shelved,omitempty"`  // it is undefined and its disks are kept, or about to be
	Came     map[string]came `json:"came,omitempty"`     // the disks it came with, by name
	Volumes  []fileOf        `json:"volumes,omitempty"`  // whose files lie here, and go with what is left of it
}

// came is a disk that was carried here.
type came struct {
	Size estate.Bytes  `json:"size"`
	Sent estate.Digest `json:"sent,omitempty"` // what the source says it sent; empty until all of it is here
}

// fileOf names a volume whose file this host may hold.
type fileOf struct {
	Project string `json:"project"`
	Name    string `json:"name"`
	UID     string `json:"uid"`
}

// leftover reports whether what is here is only kept until a move is over.
func (r record) leftover() bool { return r.Arriving || r.Shelved }

// records keeps one fsynced file per machine.
type records struct {
	dir string
	mu  sync.Mutex
	all map[estate.MachineID]record
}

func openRecords(dir string) (*records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open machine records: %w", err)
	}
	r := &records{dir: dir, all: map[estate.MachineID]record{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read machine record: %w", err)
		}
		var rec record
		if err := json.Unmarshal(b, &rec); err != nil || string(rec.ID) != strings.TrimSuffix(filepath.Base(f), ".json") {
			return nil, fault.Stuck.Errorf("machine record %s is damaged: restore it from a backup, or remove it once its machine is off", f)
		}
		r.all[rec.ID] = rec
	}
	return r, nil
}

// see records the epoch an effect is ordered under before the effect happens,
// with what change makes of the record then; it may be nil. An epoch older than
// one already seen is fault.Stale.
func (r *records) see(rec record, change func(*record)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.all[rec.ID]
	if known && rec.Epoch < old.Epoch {
		return fault.Stale.Errorf("machine %s: ordered under epoch %d, but epoch %d was seen already", rec.Name, rec.Epoch, old.Epoch)
	}
	rec.Arriving, rec.Shelved, rec.Came, rec.Volumes = old.Arriving, old.Shelved, maps.Clone(old.Came), old.Volumes
	rec.Template, rec.Identity = old.Template, old.Identity
	if change != nil {
		change(&rec)
	}
	if known && reflect.DeepEqual(old, rec) {
		return nil
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(r.file(rec.ID), b, 0o600); err != nil {
		return fmt.Errorf("record machine %s: %w", rec.Name, err)
	}
	r.all[rec.ID] = rec
	return nil
}

// forget removes what is remembered of a machine. An unknown one is success.
func (r *records) forget(id estate.MachineID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, id)
	if err := os.Remove(r.file(id)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// get returns what is remembered of a machine.
func (r *records) get(id estate.MachineID) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.all[id]
	return rec, ok
}

// left returns the records of what is only kept until a move is over.
func (r *records) left() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []record
	for _, rec := range r.all {
		if rec.leftover() {
			all = append(all, rec)
		}
	}
	return all
}

func (r *records) file(id estate.MachineID) string { return filepath.Join(r.dir, string(id)+".json") }
