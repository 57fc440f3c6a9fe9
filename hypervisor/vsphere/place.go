package vsphere

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// place is where our machines go.
type place struct {
	vcenter    string // its UUID; empty on a single ESXi host
	scope      string // which machines are ours: those whose record says this
	what       string // for people
	datacenter *object.Datacenter
	vmFolder   *object.Folder // of the datacenter
	folder     string         // under it, for our machines
	compute    types.ManagedObjectReference
	pool       types.ManagedObjectReference
	host       *types.ManagedObjectReference  // nil: any of the cluster
	hosts      []types.ManagedObjectReference // that machines here can be on
	datastore  *object.Datastore
	capacity   estate.Capacity
}

// choose returns the thing of that name, or the only one.
func choose[T any](what, name string, all []T, err error, nameOf func(T) string) (T, error) {
	var none T
	var missing *find.NotFoundError
	if err != nil && !errors.As(err, &missing) {
		return none, asked(err, "look for a %s", what)
	}
	var names []string
	for _, one := range all {
		names = append(names, nameOf(one))
		if nameOf(one) == name || name == "" && len(all) == 1 {
			return one, nil
		}
	}
	have := "there is none"
	if names != nil {
		have = "there are " + strings.Join(names, ", ")
	}
	if name == "" {
		return none, fault.Invalid.Errorf("which %s is not said: %s; put ?%s=NAME in the endpoint", what, have, what)
	}
	return none, fault.Invalid.Errorf("no %s is named %q: %s", what, name, have)
}

// findPlace looks up what the endpoint names.
func (h *Host) findPlace(ctx context.Context, e endpoint) error {
	p := &h.place
	f := find.NewFinder(h.client, true)
	centers, err := f.DatacenterList(ctx, "*")
	if p.datacenter, err = choose("datacenter", e.datacenter, centers, err, (*object.Datacenter).Name); err != nil {
		return err
	}
	f.SetDatacenter(p.datacenter)
	folders, err := p.datacenter.Folders(ctx)
	if err != nil {
		return asked(err, "look for the folders of %s", p.datacenter.Name())
	}
	p.vmFolder = folders.VmFolder
	if h.client.IsVC() {
		p.vcenter, p.folder = h.client.ServiceContent.About.InstanceUuid, e.folder
	}
	stores, err := f.DatastoreList(ctx, "*")
	if p.datastore, err = choose("datastore", e.datastore, stores, err, (*object.Datastore).Name); err != nil {
		return err
	}
	if err := h.findCompute(ctx, f, e); err != nil {
		return err
	}
	return h.findRoom(ctx)
}

// findCompute looks up the cluster, and the one host in it where one is named.
func (h *Host) findCompute(ctx context.Context, f *find.Finder, e endpoint) error {
	p := &h.place
	cluster := e.cluster
	if e.host != "" {
		hosts, err := f.HostSystemList(ctx, "*/*")
		host, err := choose("host", e.host, hosts, err, (*object.HostSystem).Name)
		if err != nil {
			return err
		}
		ref := host.Reference()
		p.host, p.what = &ref, "host "+host.Name()
		cluster = path.Base(path.Dir(host.InventoryPath))
	}
	computes, err := f.ComputeResourceList(ctx, "*")
	compute, err := choose("cluster", cluster, computes, err, (*object.ComputeResource).Name)
	if err != nil {
		return err
	}
	p.compute = compute.Reference()
	var m mo.ComputeResource
	if err := property.DefaultCollector(h.client).RetrieveOne(ctx, p.compute, []string{"resourcePool", "host", "summary"}, &m); err != nil {
		return asked(err, "look at cluster %s", compute.Name())
	}
	if m.ResourcePool == nil || len(m.Host) == 0 {
		return fault.Invalid.Errorf("cluster %s has no host to run machines", compute.Name())
	}
	p.pool, p.hosts, p.scope = *m.ResourcePool, m.Host, p.compute.Value
	s := m.Summary.GetComputeResourceSummary()
	p.capacity.CPUs, p.capacity.Memory = int(s.NumCpuThreads), estate.Bytes(s.TotalMemory)
	if p.host == nil {
		p.what = "cluster " + compute.Name()
		return nil
	}
	p.hosts, p.scope = []types.ManagedObjectReference{*p.host}, p.host.Value
	var one mo.HostSystem
	if err := property.DefaultCollector(h.client).RetrieveOne(ctx, *p.host, []string{"summary.hardware"}, &one); err != nil {
		return asked(err, "look at %s", p.what)
	}
	if hw := one.Summary.Hardware; hw != nil {
		p.capacity.CPUs, p.capacity.Memory = int(hw.NumCpuThreads), estate.Bytes(hw.MemorySize)
	}
	return nil
}

// findRoom looks at the datastore. Only on file systems is a disk a pair of
// files, whose bytes HTTP gives and takes.
func (h *Host) findRoom(ctx context.Context) error {
	var m mo.Datastore
	p := &h.place
	if err := property.DefaultCollector(h.client).RetrieveOne(ctx, p.datastore.Reference(), []string{"summary"}, &m); err != nil {
		return asked(err, "look at datastore %s", p.datastore.Name())
	}
	p.datastore.DatacenterPath = p.datacenter.InventoryPath
	switch kind := types.HostFileSystemVolumeFileSystemType(m.Summary.Type); kind {
	case types.HostFileSystemVolumeFileSystemTypeVsan, types.HostFileSystemVolumeFileSystemTypeVVOL, types.HostFileSystemVolumeFileSystemTypePMEM:
		return fault.Unsupported.Errorf("datastore %s is %s, whose disks are no files: name one of VMFS or NFS with ?datastore=NAME", p.datastore.Name(), kind)
	}
	p.capacity.Disk = estate.Bytes(m.Summary.Capacity)
	return nil
}

// machineFolder returns the inventory folder for our machines, and makes it
// where it is missing.
func (h *Host) machineFolder(ctx context.Context) (*object.Folder, error) {
	if h.place.folder == "" {
		return h.place.vmFolder, nil
	}
	found, err := h.childFolder(ctx)
	if err != nil || found != nil {
		return found, err
	}
	made, err := h.place.vmFolder.CreateFolder(ctx, h.place.folder)
	if is[*types.DuplicateName](err) {
		return h.childFolder(ctx)
	}
	return made, did(err, "make folder %s", h.place.folder)
}

func (h *Host) childFolder(ctx context.Context) (*object.Folder, error) {
	ref, err := object.NewSearchIndex(h.client).FindChild(ctx, h.place.vmFolder, h.place.folder)
	if err != nil {
		return nil, asked(err, "look for folder %s", h.place.folder)
	}
	if ref == nil {
		return nil, nil
	}
	f, is := ref.(*object.Folder)
	if !is {
		return nil, fault.Invalid.Errorf("%s is no folder of machines: name another with ?folder=NAME", h.place.folder)
	}
	return f, nil
}

// unguarded refuses where vSphere HA would start a machine by itself: it knows
// nothing of where else we have started that machine since.
func (h *Host) unguarded(ctx context.Context, v *vm) error {
	if h.place.compute.Type != "ClusterComputeResource" {
		return nil
	}
	var m mo.ClusterComputeResource
	if err := property.DefaultCollector(h.client).RetrieveOne(ctx, h.place.compute, []string{"name", "configurationEx"}, &m); err != nil {
		return asked(err, "look whether vSphere HA is on")
	}
	c, ok := m.ConfigurationEx.(*types.ClusterConfigInfoEx)
	if !ok || c.DasConfig.Enabled == nil || !*c.DasConfig.Enabled {
		return nil
	}
	priority := ""
	if d := c.DasConfig.DefaultVmSettings; d != nil {
		priority = d.RestartPriority
	}
	for _, o := range c.DasVmConfig {
		if v != nil && o.Key == v.ref && o.DasSettings != nil && o.DasSettings.RestartPriority != "" {
			priority = o.DasSettings.RestartPriority
		}
	}
	if priority == string(types.DasVmPriorityDisabled) {
		return nil
	}
	return fault.Conflict.Errorf("vSphere HA of cluster %s would start machines by itself: turn it off, or set its VM restart priority to disabled", m.Name)
}

// network returns how a card joins the network of that name.
func (h *Host) network(ctx context.Context, name string) (types.BaseVirtualDeviceBackingInfo, error) {
	f := find.NewFinder(h.client, true)
	f.SetDatacenter(h.place.datacenter)
	all, err := f.NetworkList(ctx, "*")
	net, err := choose("network", name, all, err, func(n object.NetworkReference) string { return path.Base(n.GetInventoryPath()) })
	if err != nil {
		return nil, err
	}
	b, err := net.EthernetCardBackingInfo(ctx)
	return b, asked(err, "look at network %s", name)
}

// String says what the place is, for people.
func (p place) String() string { return fmt.Sprintf("%s in %s", p.what, p.datacenter.Name()) }
