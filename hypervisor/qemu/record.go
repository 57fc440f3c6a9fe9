package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/estate"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// What lies in a machine's folder beside its disks.
const (
	recordFile = "machine.json"
	lifeFile   = "life"    // locked by the machine's process for as long as it lives
	varsFile   = "vars.fd" // the firmware's memory, under UEFI
	logFile    = "qemu.log"
	serialFile = "console.log" // what it wrote to its serial console
)

// Names of folders that are being made or removed. A crash leaves them, Open
// removes them.
const (
	making   = ".new-"
	removing = ".gone-"
)

// record is what we know of a machine beyond what its process tells. It is
// written before anything that a crash must not make us forget.
type record struct {
	Def       driver.Definition
	UID       int
	Copies    map[string]copied  // private disks by name
	Snapshots []snapshot         // oldest first
	Starts    int64              // completed power-ons
	Starting  int64              // the number of the power-on begun last
	Started   time.Time          // of power-on Starting
	Key       string             `json:",omitempty"` // names what a sealed machine's disks are written with
	Saved     *saved             // its memory, while it is off; nil otherwise
	Paused    bool               `json:",omitempty"` // its guest is to stand still
	Apart     bool               `json:",omitempty"` // it runs without network cards but its template's and those joined
	Built     int                `json:",omitempty"` // how many its template had: its first ones
	Joined    []int              `json:",omitempty"` // the slots of the next ones
	Plugged   map[string]plugged // disks attached since the last power-on
	Gone      flow               // through disks detached since then
	Cards     *flow              // what the counters of its cards said then; nil when unknown
}

// copied is a private disk: a stack of files in the machine's folder, of which
// only the topmost is written to.
type copied struct {
	File   string
	Format estate.DiskFormat
	Under  []layer `json:",omitempty"` // what File stands on, nearest first
	OnBase bool    // and the last of them stands on the base
}

// layer is a file of a private disk that does not change any more.
type layer struct {
	File   string
	Format estate.DiskFormat
	Shared bool `json:",omitempty"` // a template's, and other clones'
}

// layers returns the whole stack, topmost first.
func (c copied) layers() []layer {
	return append([]layer{{File: c.File, Format: c.Format}}, c.Under...)
}

// stack is a disk of these layers.
func stack(layers []layer, onBase bool) copied {
	return copied{File: layers[0].File, Format: layers[0].Format, Under: layers[1:], OnBase: onBase}
}

// files returns the names of everything that belongs into the machine's folder.
func (r record) files() map[string]bool {
	all := map[string]bool{recordFile: true, lifeFile: true, varsFile: true, logFile: true, serialFile: true}
	for disk := range r.Copies {
		for _, c := range r.stacks(disk) {
			for _, l := range c.layers() {
				all[l.File] = true
			}
		}
	}
	if r.Saved != nil {
		all[r.Saved.File] = true
		all[r.Saved.RAM] = true
		if r.Saved.RAM != "" {
			for disk := range r.Copies {
				all[disk+blankEnding] = true
			}
		}
	}
	return all
}

// freeName returns a name for another file of the disk.
func (r record) freeName(disk, ending string) string {
	taken := r.files()
	for i := 1; ; i++ {
		if name := fmt.Sprintf("%s-%d%s", disk, i, ending); !taken[name] {
			return name
		}
	}
}

// plugged is a disk attached to the running machine.
type plugged struct {
	Disk driver.Disk
	Slot int
	Last flow // what had gone through it when it was last asked to go
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

// The life lock is an open-file-description lock (fcntl(2)): the machine's
// process inherits the description, so the kernel holds the lock until the last
// of that process is gone. Process numbers are reused; this lock is not.

// lockLife opens and locks the life file. It returns nil where a process has it.
func lockLife(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lifeFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		f.Close()
		return nil, nil
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// alive reports whether a process holds the life lock, without taking it.
func alive(dir string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, lifeFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}
