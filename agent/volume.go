package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/atomicfile"
)

// volumes keeps the data that outlives machines: raw disks with one ext4 file
// system each, named by the volume's UID.
type volumes struct {
	dir string
}

func openVolumes(dir string) (*volumes, error) {
	// Others may pass through: a machine's own user reaches its disk by path.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	unfinished, err := filepath.Glob(filepath.Join(dir, "*.new"))
	if err != nil {
		return nil, err
	}
	for _, f := range unfinished {
		os.Remove(f)
	}
	return &volumes{dir}, nil
}

// content returns the volume's disk, made on first use.
func (v *volumes) content(ctx context.Context, vol *estate.Volume) (*driver.Content, error) {
	path := v.path(vol)
	if _, err := os.Stat(path); os.IsNotExist(err) {
		if vol.Status.Hypervisor != "" {
			// It was made once. An empty disk in its place would look like lost files.
			return nil, fault.Stuck.Errorf("volume %s was made on this host and its file is gone: restore %s from a backup", vol.Metadata.Name, path)
		}
		if err := v.make(ctx, vol, path); err != nil {
			return nil, fmt.Errorf("make volume %s: %w", vol.Metadata.Name, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &driver.Content{Path: path, Format: estate.Raw, Size: estate.Bytes(info.Size())}, nil
}

func (v *volumes) make(ctx context.Context, vol *estate.Volume, path string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name()) // renamed when it is whole
	if err := f.Truncate(int64(vol.Spec.Size)); err != nil {
		return err
	}
	// root_owner: the first account of a Debian system owns its home.
	mkfs := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-L", "consort-home", "-m", "0", "-E", "root_owner=1000:1000,lazy_itable_init=1,nodiscard", f.Name())
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fault.Unavailable.Errorf("mkfs.ext4: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return atomicfile.SyncDir(v.dir)
}

// await returns a file of the volume's size, made empty, for the data that is
// still on another host.
func (v *volumes) await(uid string, size estate.Bytes) (*driver.Content, error) {
	path := filepath.Join(v.dir, uid+".raw")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	return &driver.Content{Path: path, Format: estate.Raw, Size: size}, nil
}

// discard destroys the volume's file, whatever is in it. An absent one is success.
func (v *volumes) discard(uid string) error {
	return v.remove(&estate.Volume{Head: estate.Head{Metadata: estate.Metadata{UID: uid}}})
}

// remove destroys the volume's data. An absent one is success.
func (v *volumes) remove(vol *estate.Volume) error {
	if err := os.Remove(v.path(vol)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("destroy volume %s: %w", vol.Metadata.Name, err)
	}
	return nil
}

func (v *volumes) path(vol *estate.Volume) string {
	return filepath.Join(v.dir, vol.Metadata.UID+".raw")
}
