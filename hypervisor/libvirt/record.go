package libvirt

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/internal/virtrpc"
)

// namespace marks the element in a domain's metadata that makes it ours, which
// holds its record.
const (
	namespace = "https://consort.dev/machine/1"
	prefix    = "consort"
)

// What lies in a machine's folder beside its disks.
const (
	recordFile = "machine.json" // the record again, for a machine that is shelved
	varsFile   = "vars.fd"      // the firmware's memory, under UEFI
)

// Names of folders that are being made or removed. A crash leaves them, Open
// removes them.
const (
	making   = ".new-"
	removing = ".gone-"
)

// record is what we know of a machine beyond what the daemon tells. It is kept
// with the daemon's definition, which changes together with it in one call. The
// daemon gives a running domain a copy of its own when it starts.
type record struct {
	Owner     string // the installation whose machine it is
	Def       driver.Definition
	Adopted   bool              `json:",omitempty"`
	Copies    map[string]copied `json:",omitempty"` // private disks by name
	Snapshots []snapshot        `json:",omitempty"` // oldest first
	Starts    int64             // counted power-ons
	Started   time.Time         // of the last of them

	// Up is in the copy of a running domain, once its power-on has been counted
	// and its guest let go: the daemon's number for that power-on. Memory that
	// was saved may bring back a copy with another's.
	Up int `json:",omitempty"`
}

// copied is a private disk: a file in the machine's folder.
type copied struct {
	File   string
	Format estate.DiskFormat
	OnBase bool `json:",omitempty"` // it holds what differs from the base
}

// snapshot is what the private disks held.
type snapshot struct {
	Name   string
	Copies map[string]copied
}

// owner returns the installation whose disks are in the folder. It is drawn
// when the folder is new.
func owner(dir string) (string, error) {
	file := filepath.Join(dir, "owner")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		b = []byte(rand.Text())
		err = atomicfile.Write(file, b, 0o600)
	}
	return string(b), err
}

// element returns the record as it is kept with a domain.
func (r record) element() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers marshal
	}
	var text bytes.Buffer
	if err := xml.EscapeText(&text, b); err != nil {
		panic(err) // a buffer takes everything
	}
	return text.String()
}

// mark is that element, as it stands in a definition of ours.
func (r record) mark() string {
	return "<" + prefix + ":machine xmlns:" + prefix + "='" + namespace + "'>" + r.element() + "</" + prefix + ":machine>"
}

func parseMark(text string) (record, error) {
	var element struct {
		Text string `xml:",chardata"`
	}
	var r record
	err := xml.Unmarshal([]byte(text), &element)
	if err == nil {
		err = json.Unmarshal([]byte(element.Text), &r)
	}
	return r, err
}

// marked reads the record kept with a domain, whoever's it is. A domain without
// one is fault.NotFound; so is one that has no definition that lasts.
func (h *Host) marked(ctx context.Context, id estate.MachineID, where uint32) (record, error) {
	text, err := h.conn.Metadata(ctx, string(id), namespace, where)
	if errors.Is(err, fault.Conflict) {
		return record{}, fault.NotFound.Errorf("no machine %s of ours: %w", id, err)
	}
	if err != nil {
		return record{}, err
	}
	r, err := parseMark(text)
	if err != nil {
		return record{}, fault.Stuck.Errorf("read the record of machine %s in its metadata: %w; mend or remove that with virsh metadata", id, err)
	}
	return r, nil
}

// record reads the record of a machine of ours; any other is fault.NotFound.
func (h *Host) record(ctx context.Context, id estate.MachineID) (record, error) {
	r, err := h.marked(ctx, id, virtrpc.Config)
	if errors.Is(err, fault.NotFound) {
		return r, fault.NotFound.Errorf("no machine %s", id)
	}
	if err == nil && r.Owner != h.owner {
		return record{}, fault.NotFound.Errorf("machine %s belongs to another installation of Consort", id)
	}
	return r, err
}

// note records r without another change to the definition.
func (h *Host) note(ctx context.Context, r record, where uint32) error {
	element := "<machine>" + r.element() + "</machine>"
	return h.conn.SetMetadata(ctx, string(r.Def.ID), element, prefix, namespace, where)
}

// define records r together with the definition that follows from it.
func (h *Host) define(ctx context.Context, r record) error {
	text, err := h.domain(r)
	if err != nil {
		return err
	}
	return h.conn.Define(ctx, text)
}

func (h *Host) dir(id estate.MachineID) string { return filepath.Join(h.cfg.Dir, string(id)) }

// shelf reads the record of a machine that the daemon does not have, from its
// folder.
func (h *Host) shelf(id estate.MachineID) (r record, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(h.dir(id), recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return record{}, false, fault.Stuck.Errorf("read the record of machine %s: %w; mend %s, or remove its folder", id, err, filepath.Join(h.dir(id), recordFile))
	}
	return r, true, nil
}

func (h *Host) writeShelf(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(h.dir(r.Def.ID), recordFile), b, 0o600)
}

// tidy removes folders that were being made or removed.
func (h *Host) tidy() error {
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), making) || strings.HasPrefix(e.Name(), removing) {
			if err := os.RemoveAll(filepath.Join(h.cfg.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes from the machine's folder what its record does not speak of:
// whoever takes a file out of a record calls it, as does whoever begins anew
// what a crash cut short.
func (h *Host) sweep(r record) error {
	keep := map[string]bool{recordFile: true, varsFile: true}
	for _, c := range r.Copies {
		keep[c.File] = true
	}
	for _, s := range r.Snapshots {
		for _, c := range s.Copies {
			keep[c.File] = true
		}
	}
	entries, err := os.ReadDir(h.dir(r.Def.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an adopted machine has none
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(h.dir(r.Def.ID), e.Name())))
		}
	}
	return err
}
