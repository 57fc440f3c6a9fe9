package vsphere

import (
	"context"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// maxName is the length of a machine's name in vSphere.
const maxName = 80

// plain replaces the characters that vSphere keeps for itself in names. It has
// escapes for them, which not all that speak its language know.
var plain = strings.NewReplacer("%", "-", "/", "-", `\`, "-")

// vmName is a machine's name in vSphere: what people call it, and its ID, which
// keeps names apart and tells whose it is when nothing else can be read.
func vmName(def driver.Definition) string {
	tail := "(" + string(def.ID) + ")"
	name := plain.Replace(def.Name)
	for len(name) > maxName-len(tail)-1 {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return strings.TrimSpace(name + " " + tail)
}

var nameTail = regexp.MustCompile(`\(([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\)$`)

func idInName(name string) (estate.MachineID, bool) {
	m := nameTail.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	return estate.MachineID(m[1]), true
}

// Define implements driver.Host. Disks are made first and the machine last, with
// its record: it is there wholly or not at all.
func (h *Host) Define(ctx context.Context, def driver.Definition) error {
	t, err := h.take(ctx, string(def.ID))
	if err != nil {
		return err
	}
	defer t.give()
	v, err := h.find(ctx, def.ID)
	if err != nil {
		return err
	}
	if v != nil {
		if v.nameOnly {
			return v.unreachable()
		}
		if !v.rec.Def.Equal(def) {
			return fault.Exists.Errorf("machine %s exists with another definition", def.ID)
		}
		return nil
	}
	if def.GuestType != "" {
		return fault.Invalid.Errorf("there is no guest type %q here", def.GuestType)
	}
	if err := h.unguarded(ctx, nil); err != nil {
		return err
	}
	cards, err := h.cards(ctx, def.NICs)
	if err != nil {
		return err
	}
	kept, err := h.shelf(ctx, def.ID)
	if err != nil {
		return err
	}
	if kept != nil && !kept.Rec.Def.Equal(def) {
		return fault.Exists.Errorf("machine %s is shelved with another definition", def.ID)
	}
	home, err := h.home(ctx, def.ID, kept)
	if err != nil {
		return err
	}
	files, err := h.stage(ctx, t, def, home, kept)
	if err != nil {
		return err
	}
	spec := h.spec(def, home, files, cards)
	if kept != nil && kept.Snapshots != nil {
		spec.ExtraConfig = append(spec.ExtraConfig, option(snapshotsKey, kept.Snapshots))
	}
	if err := h.create(ctx, t, def.ID, spec); err != nil {
		return err
	}
	if kept == nil {
		return nil
	}
	return h.remove(ctx, t, h.at(h.shelfOf(def.ID)))
}

// create makes the machine.
func (h *Host) create(ctx context.Context, t *turn, id estate.MachineID, spec types.VirtualMachineConfigSpec) error {
	folder, err := h.machineFolder(ctx)
	if err != nil {
		return err
	}
	var host *object.HostSystem
	if h.place.host != nil {
		host = object.NewHostSystem(h.client, *h.place.host)
	}
	_, err = h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return folder.CreateVM(ctx, spec, object.NewResourcePool(h.client, h.place.pool), host)
	})
	return did(err, "make machine %s on %s", id, h.place)
}

// home returns the folder that a machine is made in: where its disks are, or
// one in which no machine lies.
func (h *Host) home(ctx context.Context, id estate.MachineID, kept *shelved) (string, error) {
	if kept != nil {
		return kept.Home, nil
	}
	taken, err := h.taken(ctx, id)
	if err != nil {
		return "", err
	}
	for _, home := range h.homes(id) {
		if !taken[h.at(home)] {
			return home, nil
		}
	}
	return "", fault.Exists.Errorf("machines of ID %s lie in %s and run elsewhere in this vCenter: delete one", id, h.at(h.homes(id)[0]))
}

// taken returns the folders in which machines of that ID lie, whosever.
func (h *Host) taken(ctx context.Context, id estate.MachineID) (map[string]bool, error) {
	all, err := h.withUUID(ctx, id)
	taken := map[string]bool{}
	for _, v := range all {
		taken[homeIn(v)] = true
	}
	return taken, err
}

// stage makes the disks of a machine, except those that begin empty, which are
// made with it. What a call that was cut left is removed first.
func (h *Host) stage(ctx context.Context, t *turn, def driver.Definition, home string, kept *shelved) (files []string, err error) {
	clear := home
	if kept != nil {
		clear = path.Join(home, "vm")
	}
	if err := h.remove(ctx, t, h.at(clear)); err != nil {
		return nil, err
	}
	if err := h.mkdir(ctx, t, path.Join(home, "vm")); err != nil {
		return nil, err
	}
	for _, d := range def.Disks {
		file := ""
		switch {
		case d.File != nil:
			file, err = h.fileFor(ctx, t, d)
		case kept != nil:
			file = kept.Disks[d.Name]
		case d.Base != nil:
			file, err = h.copyBase(ctx, t, d, h.at(path.Join(home, version(d.Name, 0))))
		}
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// homeIn returns the folder of a machine that we defined, or nothing where it
// lies elsewhere.
func homeIn(v *vm) string {
	var p object.DatastorePath
	if !p.FromString(v.files.VmPathName) {
		return ""
	}
	p.Path = path.Dir(path.Dir(p.Path))
	if !strings.HasPrefix(p.Path, root+"/") || !strings.HasPrefix(path.Base(p.Path), string(v.uuid)) {
		return ""
	}
	return p.String()
}

// copyBase makes a private copy of a disk's base.
func (h *Host) copyBase(ctx context.Context, t *turn, d driver.Disk, to string) (string, error) {
	from, err := h.base(ctx, *d.Base, false)
	if err != nil {
		return "", err
	}
	if err := h.copyDisk(ctx, t, from, to); err != nil {
		return "", err
	}
	if kib(diskSize(d)) == kib(d.Base.Size) {
		return to, nil
	}
	return to, h.extendDisk(ctx, t, to, diskSize(d))
}

// guestOS is what vSphere is told of every guest: it chooses defaults by it,
// and we say all that matters.
const guestOS = types.VirtualMachineGuestOsIdentifierOtherLinux64Guest

// spec is the machine as vSphere makes it. A disk without a file begins empty.
func (h *Host) spec(def driver.Definition, home string, files []string, cards []types.BaseVirtualDevice) types.VirtualMachineConfigSpec {
	spec := types.VirtualMachineConfigSpec{
		Name:     vmName(def),
		Uuid:     string(def.ID),
		GuestId:  string(guestOS),
		NumCPUs:  int32(def.CPUs),
		MemoryMB: int64(def.Memory / estate.MiB),
		Firmware: string(types.GuestOsDescriptorFirmwareTypeBios),
		Files:    &types.VirtualMachineFileInfo{VmPathName: h.at(path.Join(home, "vm", string(def.ID)+".vmx"))},
		ExtraConfig: []types.BaseOptionValue{
			option(recordKey, record{ID: def.ID, Scope: h.place.scope, Def: def}),
			option(startsKey, starts{}),
		},
	}
	if def.Firmware == estate.UEFI {
		spec.Firmware = string(types.GuestOsDescriptorFirmwareTypeEfi)
	}
	if s := def.Screen; s != (estate.Screen{}) {
		spec.ExtraConfig = append(spec.ExtraConfig,
			&types.OptionValue{Key: "svga.autodetect", Value: "FALSE"},
			&types.OptionValue{Key: "svga.maxWidth", Value: strconv.Itoa(s.Width)},
			&types.OptionValue{Key: "svga.maxHeight", Value: strconv.Itoa(s.Height)})
	}
	for n := range (len(def.Disks)-1)/slots + 1 {
		spec.DeviceChange = append(spec.DeviceChange, add(&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
			VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: controllerKey(n)}, BusNumber: int32(n)},
			SharedBus:         types.VirtualSCSISharingNoSharing,
		}}))
	}
	for i, d := range def.Disks {
		file := files[i]
		if file == "" {
			file = h.at(path.Join(home, version(d.Name, 0)))
		}
		change := add(newDisk(d, file, controllerKey(i/slots), unitOf(i%slots), int32(-100-i)))
		if files[i] == "" {
			change.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
		}
		spec.DeviceChange = append(spec.DeviceChange, change)
	}
	for i, card := range cards {
		card.GetVirtualDevice().Key = int32(-500 - i)
		spec.DeviceChange = append(spec.DeviceChange, add(card))
	}
	return spec
}

// slots is how many disks a SCSI controller has room for: it takes unit 7 itself.
const slots = 15

func controllerKey(n int) int32 { return int32(-1 - n) }

func unitOf(i int) int32 {
	if i >= 7 {
		i++
	}
	return int32(i)
}

func add(d types.BaseVirtualDevice) *types.VirtualDeviceConfigSpec {
	return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d}
}

// newDisk is a disk as vSphere adds it. Files are independent: vSphere's own
// snapshots leave them out. What is written to one that is read-only is
// forgotten at power-off.
func newDisk(d driver.Disk, file string, controller, unit, key int32) *types.VirtualDisk {
	mode := types.VirtualDiskModePersistent
	switch {
	case d.ReadOnly:
		mode = types.VirtualDiskModeIndependent_nonpersistent
	case d.File != nil:
		mode = types.VirtualDiskModeIndependent_persistent
	}
	return &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key: key, ControllerKey: controller, UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file},
				DiskMode:                     string(mode),
				ThinProvisioned:              types.NewBool(true),
			},
		},
		CapacityInKB: kib(diskSize(d)),
	}
}

// cards are the machine's network cards.
func (h *Host) cards(ctx context.Context, nics []driver.NIC) (all []types.BaseVirtualDevice, err error) {
	for _, n := range nics {
		if n.Name == "" {
			return nil, fault.Unsupported.Errorf("network card %s is not joined to a network by name, which is all that vSphere does", n.MAC)
		}
		backing, err := h.network(ctx, n.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: types.VirtualEthernetCard{
			VirtualDevice: types.VirtualDevice{
				Backing:     backing,
				Connectable: &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: false},
			},
			AddressType: string(types.VirtualEthernetCardMacTypeManual),
			MacAddress:  n.MAC,
		}}})
	}
	return all, nil
}

// Delete implements driver.Host. Files are taken out first, since vSphere
// destroys a machine with all disks that it has.
func (h *Host) Delete(ctx context.Context, id estate.MachineID) error {
	t, v, err := h.hold(ctx, id, h.find)
	if err != nil {
		return err
	}
	defer t.give()
	if v == nil {
		return h.sweep(ctx, t, id)
	}
	if v.nameOnly {
		return v.unreachable()
	}
	if err := h.pullPlug(ctx, t, v); err != nil {
		return err
	}
	if v.rec.Adopted {
		return h.unregister(ctx, t, v)
	}
	if err := h.keepFiles(ctx, t, v); err != nil {
		return err
	}
	_, err = h.task(ctx, t, func(ctx context.Context) (*object.Task, error) {
		return object.NewVirtualMachine(h.client, v.ref).Destroy(ctx)
	})
	if err != nil && !is[*types.ManagedObjectNotFound](err) {
		return did(err, "remove machine %s", id)
	}
	if home := homeIn(v); home != "" {
		return h.remove(ctx, t, home)
	}
	return nil
}

// keepFiles takes out of the machine what outlives it.
func (h *Host) keepFiles(ctx context.Context, t *turn, v *vm) error {
	var spec types.VirtualMachineConfigSpec
	for _, device := range v.devices.SelectByType((*types.VirtualDisk)(nil)) {
		if file := fileOf(device.(*types.VirtualDisk)); v.isPrivate(file) {
			continue
		}
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: device,
		})
	}
	if spec.DeviceChange == nil {
		return nil
	}
	return h.reconfigure(ctx, t, v, spec)
}

// isPrivate reports whether the file is a disk that Define made for the machine:
// one that its definition does not call a File, nor somebody else put there.
func (v *vm) isPrivate(file string) bool {
	for i, d := range v.disks() {
		if fileOf(d) == file && len(v.disks()) == len(v.rec.Def.Disks) {
			return v.rec.Def.Disks[i].File == nil
		}
	}
	home := homeIn(v)
	return home != "" && strings.HasPrefix(file, home+"/")
}

// unregister takes the machine out of the inventory and leaves its files.
func (h *Host) unregister(ctx context.Context, t *turn, v *vm) error {
	err := t.act(ctx, func(ctx context.Context) error {
		return object.NewVirtualMachine(h.client, v.ref).Unregister(ctx)
	})
	if is[*types.ManagedObjectNotFound](err) {
		err = nil
	}
	return did(err, "unregister machine %s", v.rec.ID)
}
