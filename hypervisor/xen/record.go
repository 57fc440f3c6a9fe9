package xen

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// recordFile lies in a machine's folder beside its private disks.
const recordFile = "machine.json"

// Names of folders that are being made or removed. A crash leaves them, Open
// removes them.
const (
	making   = ".new-"
	removing = ".gone-"
)

// record is what we know of a machine; libvirt's definition follows from it. It
// is written before anything that a crash must not make us forget.
//
// A power-on is counted when libvirt says that it happened. Should we die while
// we ask for it, it is counted as soon as the machine is seen to run; one that
// ends before anybody looks is the only one that can be missed.
type record struct {
	Def       driver.Definition
	Files     map[string]string // private disks: the file of each, raw, in the folder
	Snapshots []snapshot        `json:",omitempty"` // oldest first
	Starts    int64             // completed power-ons
	Starting  int64             // the number of the power-on begun last
	Started   time.Time         // of power-on Starting
	Resumed   bool              `json:",omitempty"` // power-on Starting went on from saved memory
	Shelved   bool              `json:",omitempty"`
	Adopted   string            `json:",omitempty"` // the definition we found, in libvirt's XML
	Arriving  string            `json:",omitempty"` // what the host it comes from must know; it has not come yet
}

// snapshot is what private disks held: files in the folder, by the disk's name.
type snapshot struct {
	Name  string
	Files map[string]string
}

func readRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err
}

func (r record) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, recordFile), b, 0o600)
}

// files returns the names of everything that belongs into the machine's folder.
func (r record) files() map[string]bool {
	all := map[string]bool{recordFile: true}
	for _, f := range r.Files {
		all[f] = true
	}
	for _, s := range r.Snapshots {
		for _, f := range s.Files {
			all[f] = true
		}
	}
	return all
}
