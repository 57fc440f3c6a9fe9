package vsphere

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
)

// raw is what bases hold.
var raw = bytes.Repeat([]byte("a base without a system. "), 41)[:1024]

func (s *vcsim) base(t testing.TB) driver.Content {
	t.Helper()
	return driver.Content{Path: s.file(t, "base.img", string(raw)), Format: estate.Raw, Size: estate.Bytes(len(raw))}
}

// stranger has the vendor's own client make a machine with a disk.
func stranger(h *Host) func(context.Context) (estate.MachineID, error) {
	n := 0
	return func(ctx context.Context) (estate.MachineID, error) {
		n++
		name := "theirs-" + string(rune('a'+n))
		f := find.NewFinder(h.client, true).SetDatacenter(h.place.datacenter)
		pool, err := f.ResourcePool(ctx, "*/Resources")
		if err != nil {
			return "", err
		}
		spec := types.VirtualMachineConfigSpec{
			Name: name, GuestId: string(guestOS), NumCPUs: 1, MemoryMB: 64,
			Files: &types.VirtualMachineFileInfo{VmPathName: h.at("")},
			DeviceChange: []types.BaseVirtualDeviceConfigSpec{
				add(&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
					VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: -1}},
					SharedBus:         types.VirtualSCSISharingNoSharing,
				}}),
				&types.VirtualDeviceConfigSpec{
					Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate,
					Device: newDisk(driver.Disk{Size: estate.MiB}, h.at(name+".vmdk"), -1, 0, -2),
				},
			},
		}
		task, err := h.place.vmFolder.CreateVM(ctx, spec, pool, object.NewHostSystem(h.client, h.place.hosts[0]))
		if err != nil {
			return "", err
		}
		info, err := task.WaitForResult(ctx, nil)
		if err != nil {
			return "", err
		}
		vm := object.NewVirtualMachine(h.client, info.Result.(types.ManagedObjectReference))
		if n%3 == 0 { // every third cannot be adopted
			return estate.MachineID(vm.UUID(ctx)), vm.MarkAsTemplate(ctx)
		}
		return estate.MachineID(vm.UUID(ctx)), nil
	}
}

// read reads a file of the suite's, or one on the datastore by its path on ESXi.
func (s *vcsim) read(h *Host) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		if rel, on := strings.CutPrefix(path, "/vmfs/volumes/"+h.place.datastore.Name()+"/"); on {
			var m mo.Datastore
			if err := h.place.datastore.Properties(context.Background(), h.place.datastore.Reference(), []string{"summary.url"}, &m); err != nil {
				return nil, err
			}
			path = filepath.Join(m.Summary.Url, rel)
		}
		return os.ReadFile(path)
	}
}

// bench is a place of one host in a cluster of two; the other is the second's.
func bench(t *testing.T) drivertest.Bench {
	s := simulate(t)
	h := s.open(t, "host=DC0_C0_H0")
	return drivertest.Bench{
		Host: h, Other: s.open(t, "host=DC0_C0_H1"), Simulated: true,
		Base: s.base(t), Raw: raw, Dir: s.dir, Read: s.read(h),
		Reopen:   func() (driver.Host, error) { return s.open(t, "host=DC0_C0_H0"), nil },
		Stranger: stranger(h), Blind: s.blind,
	}
}

func TestConformance(t *testing.T) { drivertest.RunShared(t, bench) }

// A single host of ESXi has no vCenter above it to move machines.
func TestASingleHostDoesAllButMove(t *testing.T) {
	s := serve(t, "-alone")
	h, err := Open(t.Context(), s.config())
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.Describe(t.Context())
	if err != nil || d.Has(estate.CanMoveLive) || driver.Implements(h, estate.CanMoveLive) || !driver.Implements(h, estate.CanSnapshot) {
		t.Errorf("Describe = %+v, %v; want all but live moves", d, err)
	}
	def := definition(s.base(t))
	for _, step := range []func() error{
		func() error { return h.Define(t.Context(), def) },
		func() error { return h.Start(t.Context(), def.ID) },
		func() error { return h.Stop(t.Context(), def.ID, 0) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := h.List(t.Context()); err != nil || len(all) != 1 || all[0].Starts != 1 || all[0].Power != estate.Off {
		t.Errorf("List = %+v, %v; want one that is off after 1 start", all, err)
	}
	if err := h.Delete(t.Context(), def.ID); err != nil {
		t.Error(err)
	}
}

func TestServersNobodyVouchesForAreRefused(t *testing.T) {
	s := simulate(t)
	good := soap.ThumbprintSHA256(s.cert)
	bad := strings.Repeat("AB:", 31) + "AB"
	for _, c := range []struct {
		name, query string
		want        error
	}{
		{"nobody", "", fault.Denied},
		{"another thumbprint", "?thumbprint=" + bad, fault.Unavailable},
		{"a short thumbprint", "?thumbprint=AB:CD", fault.Invalid},
		{"no file", "?ca=/nowhere", fault.Invalid},
		{"its thumbprint", "?thumbprint=" + strings.ToLower(good), nil},
		{"its authority", "?ca=" + s.ca, nil},
	} {
		h, err := open(t.Context(), Config{Endpoint: "https://" + s.at + c.query, Credentials: s.creds})
		if err == nil {
			h.Close()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: Open = %v, want %v", c.name, err, c.want)
		}
	}
}

func TestEndpointsAreRead(t *testing.T) {
	for _, text := range []string{
		"http://vc.example", "https://", "https://root:secret@vc.example", "https://vc.example/ui",
		"https://vc.example?insecure=1", "https://vc.example?host=a&host=b", "vc.example", "https://vc.example/%zz",
	} {
		_, err := parseEndpoint(text)
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("parseEndpoint(%q) = %v, want invalid", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	e, err := parseEndpoint("https://vc.example/?cluster=C%201&datastore=d")
	if err != nil || e.sdk.String() != "https://vc.example/sdk" || e.cluster != "C 1" || e.datastore != "d" || e.folder != "consort" {
		t.Errorf("parseEndpoint = %+v, %v", e, err)
	}
}

func TestCredentialsAreKeptToOneself(t *testing.T) {
	s := simulate(t)
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want error
	}{
		"one line":       {"agent\n", 0o600, fault.Invalid},
		"others read":    {testUser + "\n" + testPassword + "\n", 0o644, fault.Invalid},
		"wrong password": {testUser + "\nwrong-pass\n", 0o600, fault.Unauthenticated},
		"from Windows":   {testUser + "\r\n" + testPassword + "\r\n", 0o600, nil},
	} {
		cfg := s.config()
		cfg.Credentials = s.file(t, name, c.text)
		if err := os.Chmod(cfg.Credentials, c.mode); err != nil {
			t.Fatal(err)
		}
		h, err := open(t.Context(), cfg)
		if err == nil {
			h.Close()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: Open = %v, want %v", name, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "wrong-pass") || strings.Contains(err.Error(), testPassword)) {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}
