package vsphere

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/internal/vdisk"
)

// diskSize is the size of a disk as its guest sees it.
func diskSize(d driver.Disk) estate.Bytes {
	switch {
	case d.File != nil:
		return d.File.Size
	case d.Base != nil:
		return max(d.Size, d.Base.Size)
	}
	return d.Size
}

// version is the file of a disk's nth content: it takes turns between two
// names, so that a new content is complete before the machine takes it up.
func version(name string, n int) string { return fmt.Sprintf("%s_%d.vmdk", name, n) }

// other is where the next content of the disk in that file goes.
func other(file, name string) string {
	if path.Base(file) == version(name, 0) {
		return inFolder(file, version(name, 1))
	}
	return inFolder(file, version(name, 0))
}

// open opens a disk file of this host as raw bytes. Its format is that of our
// record; a file that would have others read along is refused.
func (h *Host) open(ctx context.Context, c driver.Content) (f *os.File, err error) {
	if f, err = os.Open(c.Path); err != nil {
		return nil, fault.Unavailable.Errorf("open a disk: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.Invalid.Errorf("%s is no file", c.Path)
	}
	if err == nil && c.Format != estate.Raw {
		err = harmless(f, info.Size(), c.Format)
	}
	if err == nil && c.Format == estate.Raw {
		return f, nil
	}
	f.Close()
	if err != nil {
		return nil, err
	}
	if err := h.haveTool(); err != nil {
		return nil, err
	}
	raw, err := os.CreateTemp(h.cfg.Dir, "disk-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(raw.Name())
	cmd := exec.CommandContext(ctx, h.cfg.ImageTool, "convert", "-q", "-f", string(c.Format), "-O", "raw", c.Path, raw.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		raw.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.Internal.Errorf("lay out %s: %w: %s", c.Path, err, strings.TrimSpace(string(out)))
	}
	return raw, nil
}

// harmless refuses a disk that names other files.
func harmless(f *os.File, length int64, format estate.DiskFormat) (err error) {
	switch format {
	case estate.QCOW2:
		_, err = vdisk.CheckQCOW2(f, length)
	case estate.VMDK:
		_, err = vdisk.CheckVMDK(f, length)
	default:
		return fault.Invalid.Errorf("%q is not a disk format we know", format)
	}
	var no *vdisk.Refusal
	if errors.As(err, &no) {
		return fault.Invalid.Errorf("disk %s: %w", f.Name(), err)
	}
	return err
}

// send writes what a file of this host holds to a new disk.
func (h *Host) send(ctx context.Context, t *turn, c driver.Content, disk string) error {
	f, err := h.open(ctx, c)
	if err != nil {
		return err
	}
	defer f.Close()
	size := int64(c.Size)
	return h.fillDisk(ctx, t, disk, io.LimitReader(io.MultiReader(f, zeros{}), size), c.Size)
}

// base returns the disk with what a file holds that never changes. It is sent
// once for all machines, under the name of its bytes. A disk that machines
// attach as it is has the name of its file too: no machine takes one twice.
func (h *Host) base(ctx context.Context, c driver.Content, asItIs bool) (string, error) {
	sum, err := h.sum(ctx, c)
	if err != nil {
		return "", err
	}
	if asItIs {
		sum += "-" + pathSum(c.Path)[:8]
	}
	t, err := h.take(ctx, bases+sum)
	if err != nil {
		return "", err
	}
	defer t.give()
	file := path.Join(bases, sum+".vmdk")
	if there, err := h.exists(ctx, file); err != nil || there {
		return h.at(file), err
	}
	if err := h.mkdir(ctx, t, bases); err != nil {
		return "", err
	}
	part := h.at(path.Join(bases, sum+"_"+h.place.scope+".vmdk"))
	if err := h.send(ctx, t, c, part); err != nil {
		return "", err
	}
	err = h.moveDisk(ctx, t, part, h.at(file))
	if errors.Is(err, fault.Exists) { // another agent was faster
		err = h.removeDisk(ctx, t, part)
	}
	return h.at(file), err
}

// sum returns a name for what a disk holds. A file is read once, as long as it
// looks the same.
func (h *Host) sum(ctx context.Context, c driver.Content) (string, error) {
	f, err := os.Open(c.Path)
	if err != nil {
		return "", fault.Unavailable.Errorf("open a disk: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	looks := fmt.Sprint(c, info.Size(), info.ModTime().UnixNano())
	h.mu.Lock()
	known := h.sums[looks]
	h.mu.Unlock()
	if known != "" {
		return known, nil
	}
	s := sha256.New()
	if _, err := io.Copy(s, cut{ctx, f}); err != nil {
		return "", err
	}
	known = fmt.Sprintf("%x-%d", s.Sum(nil), c.Size)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sums[looks] = known
	return known, nil
}

// pathSum is a path in an alphabet that datastores take.
func pathSum(path string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(path))) }

// volume returns the disk that stands for a file which machines write. The
// file is sent once; from then on the datastore has it, until it is exported.
func (h *Host) volume(ctx context.Context, t *turn, c driver.Content) (string, error) {
	dir := path.Join(volumes, pathSum(c.Path)[:32])
	var found []string
	for n := range 2 {
		file := path.Join(dir, version("disk", n))
		there, err := h.exists(ctx, file)
		if err != nil {
			return "", err
		}
		if there {
			found = append(found, h.at(file))
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 2:
		return "", fault.Stuck.Errorf("volume %s is twice on the datastore, in %s: an import was cut and its machine is gone; remove the one you do not want", c.Path, h.at(dir))
	}
	if err := h.mkdir(ctx, t, dir); err != nil {
		return "", err
	}
	part, whole := h.at(path.Join(dir, "part.vmdk")), h.at(path.Join(dir, version("disk", 0)))
	if err := h.send(ctx, t, c, part); err != nil {
		return "", err
	}
	return whole, h.moveDisk(ctx, t, part, whole)
}

// disks returns a machine's disks in order, leaving out those attached since.
func (v *vm) disks() []*types.VirtualDisk {
	var all []*types.VirtualDisk
	for _, d := range v.devices.SelectByType((*types.VirtualDisk)(nil)) {
		disk := d.(*types.VirtualDisk)
		if !slices.ContainsFunc(v.attached.Disks, func(p plugged) bool { return p.File == fileOf(disk) }) {
			all = append(all, disk)
		}
	}
	slices.SortStableFunc(all, func(a, b *types.VirtualDisk) int {
		return cmp.Or(cmp.Compare(a.ControllerKey, b.ControllerKey), cmp.Compare(unit(a), unit(b)))
	})
	return all
}

func unit(d *types.VirtualDisk) int32 {
	if d.UnitNumber == nil {
		return 0
	}
	return *d.UnitNumber
}

// fileOf returns the file of a disk, or nothing where it is none.
func fileOf(d *types.VirtualDisk) string {
	if b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
		return b.GetVirtualDeviceFileBackingInfo().FileName
	}
	return ""
}

// disk returns a disk of the machine's definition and the device that is it:
// the first of one is the first of the other.
func (v *vm) disk(name string) (driver.Disk, *types.VirtualDisk, error) {
	i := slices.IndexFunc(v.rec.Def.Disks, func(d driver.Disk) bool { return d.Name == name })
	if i < 0 {
		return driver.Disk{}, nil, fault.NotFound.Errorf("machine %s has no disk %s", v.rec.ID, name)
	}
	devices := v.disks()
	if len(devices) != len(v.rec.Def.Disks) {
		return driver.Disk{}, nil, fault.Stuck.Errorf("machine %s was defined with %d disks and has %d: somebody changed it in vSphere", v.rec.ID, len(v.rec.Def.Disks), len(devices))
	}
	if fileOf(devices[i]) == "" {
		return driver.Disk{}, nil, fault.Unsupported.Errorf("disk %s of machine %s is not a file", name, v.rec.ID)
	}
	return v.rec.Def.Disks[i], devices[i], nil
}

// Export implements driver.Transferer.
func (h *Host) Export(ctx context.Context, id estate.MachineID, name string, w io.Writer) error {
	t, v, err := h.hold(ctx, id, h.resting)
	if err != nil {
		return err
	}
	defer t.give()
	d, device, err := v.disk(name)
	if err != nil {
		return err
	}
	file := fileOf(device)
	if v.chained { // the file holds what differs from a snapshot's
		whole := inFolder(file, "export.vmdk")
		if err := h.copyDisk(ctx, t, file, whole); err != nil {
			return err
		}
		defer h.removeDisk(context.WithoutCancel(ctx), t, whole)
		file = whole
	}
	r, err := h.get(ctx, flat(file))
	if err != nil {
		return err
	}
	defer r.Close()
	// What lies past the end of the file reads as zeros.
	size := int64(diskSize(d))
	n, err := io.Copy(w, cut{ctx, io.LimitReader(r, size)})
	if err == nil && n < size {
		_, err = io.CopyN(w, cut{ctx, zeros{}}, size-n)
	}
	return asked(err, "read disk %s of machine %s", name, id)
}

// Import implements driver.Transferer. The new content is a file of its own,
// which the machine takes up once it is complete.
func (h *Host) Import(ctx context.Context, id estate.MachineID, name string, r io.Reader) error {
	t, v, err := h.hold(ctx, id, h.resting)
	if err != nil {
		return err
	}
	defer t.give()
	d, device, err := v.disk(name)
	if err != nil {
		return err
	}
	if d.File != nil && d.ReadOnly {
		return fault.Denied.Errorf("disk %s is read-only", name)
	}
	if err := h.unchained(ctx, t, v); err != nil {
		return err
	}
	part := inFolder(fileOf(device), "part_"+name+".vmdk")
	whole := &exactly{r: r, left: int64(diskSize(d))}
	err = h.fillDisk(ctx, t, part, whole, diskSize(d))
	if bad := whole.verdict(err == nil); bad != nil {
		err = bad
	}
	if err != nil {
		return err
	}
	next := v.nextFile(d, device)
	if err := h.removeDisk(ctx, t, next); err != nil {
		return err
	}
	if err := h.moveDisk(ctx, t, part, next); err != nil {
		return err
	}
	return h.swap(ctx, t, v, map[*types.VirtualDisk]string{device: next})
}

// nextFile is where the next content of a disk goes.
func (v *vm) nextFile(d driver.Disk, device *types.VirtualDisk) string {
	if d.File != nil && !v.rec.Adopted {
		return other(fileOf(device), "disk")
	}
	return other(fileOf(device), d.Name)
}

// unchained readies a machine that is off for other disks: what was saved of
// its memory no longer goes with them, and snapshots of vSphere's own would.
func (h *Host) unchained(ctx context.Context, t *turn, v *vm) error {
	if v.chained {
		return fault.Conflict.Errorf("machine %s has snapshots that were made in vSphere: delete them there first", v.rec.ID)
	}
	return h.forgetSaved(ctx, t, v)
}

// swap gives a machine other files for some of its disks, all at once, and
// removes the old ones.
func (h *Host) swap(ctx context.Context, t *turn, v *vm, files map[*types.VirtualDisk]string) error {
	var spec types.VirtualMachineConfigSpec
	key := int32(-1)
	for device, file := range files {
		next := *device
		next.Key, next.Backing = key, &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file},
			DiskMode:                     modeOf(device),
		}
		next.DeviceInfo, next.VDiskId = nil, nil
		key--
		spec.DeviceChange = append(spec.DeviceChange,
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: device},
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: &next})
	}
	if err := h.reconfigure(ctx, t, v, spec); err != nil {
		return err
	}
	for device := range files {
		if err := h.removeDisk(ctx, t, fileOf(device)); err != nil {
			return err
		}
	}
	return nil
}

func modeOf(d *types.VirtualDisk) string {
	if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
		return b.DiskMode
	}
	return string(types.VirtualDiskModePersistent)
}

// reconfigure changes a machine, all at once.
func (h *Host) reconfigure(ctx context.Context, t *turn, v *vm, spec types.VirtualMachineConfigSpec) error {
	_, err := h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualMachine(h.client, v.ref).Reconfigure(ctx, spec)
	})
	return did(err, "change machine %s", cmp.Or(v.rec.ID, v.uuid))
}

// exactly yields what r does, which must be left bytes.
type exactly struct {
	r    io.Reader
	left int64
	err  error
}

func (e *exactly) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0: // one that wraps it tells of a source that broke off
		e.err = fault.Invalid.Errorf("the source ends %d bytes before the disk does", e.left)
	case err != nil && err != io.EOF:
		e.err = fault.Unavailable.Errorf("the source broke off: %w", err)
	}
	if e.err != nil {
		return n, e.err
	}
	return n, nil
}

// verdict says what was wrong with the source, which sent says was read to the
// end, as far as it was asked for.
func (e *exactly) verdict(sent bool) error {
	if e.err != nil || !sent {
		return e.err
	}
	var more [1]byte
	n, err := io.ReadFull(e.r, more[:])
	if n > 0 {
		return fault.Invalid.Errorf("the source yields more than the disk holds")
	}
	if err != io.EOF {
		return fault.Unavailable.Errorf("the source broke off: %w", err)
	}
	return nil
}
