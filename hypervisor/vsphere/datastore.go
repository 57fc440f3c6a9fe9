package vsphere

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// Where our files lie on the datastore.
const (
	root    = "consort"
	bases   = root + "/bases"   // bases of private disks and read-only files, by what they hold
	volumes = root + "/volumes" // files that are written, by where they came from
)

// homes are where a machine that we define may lie: its disks in the folder
// itself, what vSphere keeps of it in vm below. There are two, since one that
// moved elsewhere in the vCenter while it ran still lies in the first.
func (h *Host) homes(id estate.MachineID) []string {
	home := path.Join(root, h.place.scope, string(id))
	return []string{home, home + "-2"}
}

// shelfOf is the note of a machine that is shelved here, awaitedOf that of one
// which may come.
func (h *Host) shelfOf(id estate.MachineID) string {
	return path.Join(root, h.place.scope, "shelf", string(id)+".json")
}

func (h *Host) awaitedOf(id estate.MachineID) string {
	return path.Join(root, h.place.scope, "awaited", string(id)+".json")
}

// at is a path on our datastore as vSphere writes it: "[datastore] folder/file".
func (h *Host) at(rel string) string { return h.place.datastore.Path(rel) }

// inFolder returns the path in that folder, keeping the datastore in front.
func inFolder(file, name string) string {
	var p object.DatastorePath
	p.FromString(file)
	p.Path = path.Join(path.Dir(p.Path), name)
	return p.String()
}

// mkdir makes a folder and those above it.
func (h *Host) mkdir(ctx context.Context, t *turn, rel string) error {
	err := t.act(ctx, func(ctx context.Context) error {
		return object.NewFileManager(h.client).MakeDirectory(ctx, h.at(rel), h.place.datacenter, true)
	})
	if is[*types.FileAlreadyExists](err) {
		err = nil
	}
	return did(err, "make folder %s", h.at(rel))
}

// remove removes a file or a whole folder. One that is not there is success.
func (h *Host) remove(ctx context.Context, t *turn, file string) error {
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewFileManager(h.client).DeleteDatastoreFile(ctx, file, h.place.datacenter)
	})
	if is[*types.FileNotFound](err) {
		err = nil
	}
	return did(err, "remove %s", file)
}

// removeDisk removes a disk. One that is not there is success.
func (h *Host) removeDisk(ctx context.Context, t *turn, disk string) error {
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualDiskManager(h.client).DeleteVirtualDisk(ctx, disk, h.place.datacenter)
	})
	if is[*types.FileNotFound](err) {
		err = nil
	}
	return did(err, "remove disk %s", disk)
}

// copyDisk makes a copy, replacing what a copy that was cut left. The server
// chooses its layout: a vCenter does not take one.
func (h *Host) copyDisk(ctx context.Context, t *turn, from, to string) error {
	if err := h.removeDisk(ctx, t, to); err != nil {
		return err
	}
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualDiskManager(h.client).CopyVirtualDisk(ctx, from, h.place.datacenter, to, h.place.datacenter, nil, false)
	})
	return did(err, "copy disk %s to %s", from, to)
}

// moveDisk renames a disk. It never replaces one.
func (h *Host) moveDisk(ctx context.Context, t *turn, from, to string) error {
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualDiskManager(h.client).MoveVirtualDisk(ctx, from, h.place.datacenter, to, h.place.datacenter, false)
	})
	return did(err, "rename disk %s to %s", from, to)
}

// extendDisk makes a disk larger; what is added reads as zeros.
func (h *Host) extendDisk(ctx context.Context, t *turn, disk string, size estate.Bytes) error {
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualDiskManager(h.client).ExtendVirtualDisk(ctx, disk, h.place.datacenter, kib(size), types.NewBool(false))
	})
	return did(err, "extend disk %s", disk)
}

// kib is a size in the KiB that vSphere counts disks in, rounded up.
func kib(size estate.Bytes) int64 { return int64((size + estate.KiB - 1) / estate.KiB) }

// fillDisk makes a disk that holds the size bytes of r, and zeros up to a whole
// KiB, replacing what one that was cut left.
func (h *Host) fillDisk(ctx context.Context, t *turn, disk string, r io.Reader, size estate.Bytes) error {
	if err := h.removeDisk(ctx, t, disk); err != nil {
		return err
	}
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualDiskManager(h.client).CreateVirtualDisk(ctx, disk, h.place.datacenter, &types.FileBackedVirtualDiskSpec{
			VirtualDiskSpec: types.VirtualDiskSpec{
				DiskType: string(types.VirtualDiskTypeThin), AdapterType: string(types.VirtualDiskAdapterTypeLsiLogic),
			},
			CapacityKb: kib(size),
		})
	})
	if err != nil {
		return did(err, "make disk %s", disk)
	}
	whole := kib(size) * int64(estate.KiB)
	return h.put(ctx, flat(disk), io.MultiReader(r, io.LimitReader(zeros{}, whole-int64(size))), whole)
}

// flat is the file with a disk's bytes. The disk's own name is that of its
// description.
func flat(disk string) string { return strings.TrimSuffix(disk, ".vmdk") + "-flat.vmdk" }

// store returns the datastore that a path names, and the path on it.
func (h *Host) store(ctx context.Context, file string) (*object.Datastore, string, error) {
	var p object.DatastorePath
	if !p.FromString(file) {
		return nil, "", fault.Internal.Errorf("%q is no path on a datastore", file)
	}
	if p.Datastore == h.place.datastore.Name() {
		return h.place.datastore, p.Path, nil
	}
	f := find.NewFinder(h.client, true)
	f.SetDatacenter(h.place.datacenter)
	all, err := f.DatastoreList(ctx, "*")
	d, err := choose("datastore", p.Datastore, all, err, (*object.Datastore).Name)
	if err != nil {
		return nil, "", err
	}
	d.DatacenterPath = h.place.datacenter.InventoryPath
	return d, p.Path, nil
}

// put writes a file of exactly that size.
func (h *Host) put(ctx context.Context, file string, r io.Reader, size int64) error {
	d, rel, err := h.store(ctx, file)
	if err != nil {
		return err
	}
	if err := h.login.ensure(ctx); err != nil {
		return err
	}
	p := soap.DefaultUpload
	p.ContentLength = size
	err = d.Upload(ctx, io.NopCloser(cut{ctx, r}), rel, &p)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return sent(err, "write %s", file)
}

// get opens a file.
func (h *Host) get(ctx context.Context, file string) (io.ReadCloser, error) {
	d, rel, err := h.store(ctx, file)
	if err != nil {
		return nil, err
	}
	if err := h.login.ensure(ctx); err != nil {
		return nil, err
	}
	p := soap.DefaultDownload
	res, err := d.Client().DownloadRequest(ctx, d.NewURL(rel), &p)
	if err != nil {
		return nil, asked(err, "read %s", file)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, sent(errors.New(res.Status), "read %s", file)
	}
	return res.Body, nil
}

// statuses are the kinds of HTTP's answers, which the client keeps as text only.
var statuses = map[string]fault.Kind{
	"401": fault.Unauthenticated, "403": fault.Denied, "404": fault.NotFound, "423": fault.Busy,
	"507": fault.NoCapacity, "413": fault.NoCapacity,
}

// sent names an error of a transfer of files, which may be repeated as a whole.
func sent(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	code, _, _ := strings.Cut(err.Error(), " ")
	if kind, known := statuses[code]; known {
		args = append(args, err)
		return kind.Errorf(format+": %w", args...)
	}
	return asked(err, format, args...)
}

// exists reports whether there is a file of that name.
func (h *Host) exists(ctx context.Context, rel string) (bool, error) {
	_, err := h.place.datastore.Stat(ctx, rel)
	var noFile object.DatastoreNoSuchFileError
	var noDir object.DatastoreNoSuchDirectoryError
	if errors.As(err, &noFile) || errors.As(err, &noDir) {
		return false, nil
	}
	return err == nil, asked(err, "look for %s", h.at(rel))
}

// maxNote is the most a small file of ours holds.
const maxNote = 1 << 20

// readNote reads a small file. One that is not there is nil.
func (h *Host) readNote(ctx context.Context, rel string) ([]byte, error) {
	there, err := h.exists(ctx, rel)
	if err != nil || !there {
		return nil, err
	}
	r, err := h.get(ctx, h.at(rel))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxNote))
	return b, asked(err, "read %s", h.at(rel))
}

// writeNote writes a small file, and the folders it lies in.
func (h *Host) writeNote(ctx context.Context, t *turn, rel string, b []byte) error {
	if err := h.mkdir(ctx, t, path.Dir(rel)); err != nil {
		return err
	}
	return h.put(ctx, h.at(rel), bytes.NewReader(b), int64(len(b)))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// cut is a reader that ends when ctx does.
type cut struct {
	ctx context.Context
	r   io.Reader
}

func (c cut) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
