package vsphere

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/cli"
	_ "github.com/vmware/govmomi/cli/vm"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/drivertest"
)

// TestMain keeps vcsim quiet: it tells of every fault it is told to make. The
// program is govc, the vendor's own client, when it is started as that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "govc" {
		os.Exit(cli.Run(os.Args[2:]))
	}
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// vcsim is a simulated vCenter with one cluster of two hosts and one datastore.
type vcsim struct {
	model  *simulator.Model
	server *simulator.Server
	dir    string
	ca     string // file with its certificate
	cert   *x509.Certificate
	creds  string // file with a user it lets in
}

// closeSoon closes vcsim, and leaves it to itself when a request does not end: a
// wait for updates of its sometimes outlives whoever asked.
func closeSoon(shut func()) {
	done := make(chan struct{})
	go func() { defer close(done); shut() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	}
}

const testUser, testPassword = "agent@vsphere.local", "not a word of English"

func simulate(t testing.TB) *vcsim {
	m := simulator.VPX()
	m.Host, m.ClusterHost = 0, 2
	return serve(t, m)
}

func serve(t testing.TB, m *simulator.Model) *vcsim {
	t.Helper()
	m.Machine = 0
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Remove)
	m.Service.TLS = new(tls.Config)
	m.Service.Listen = &url.URL{User: url.UserPassword(testUser, testPassword)}
	s := &vcsim{model: m, server: m.Service.NewServer(), dir: t.TempDir()}
	t.Cleanup(func() { closeSoon(s.server.Close) })
	s.cert = s.server.Certificate()
	s.ca = s.file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})))
	s.creds = s.file(t, "creds", testUser+"\n"+testPassword+"\n")
	return s
}

func (s *vcsim) file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config is how to open a host of the vCenter.
func (s *vcsim) config(query ...string) Config {
	q := append([]string{"ca=" + url.QueryEscape(s.ca)}, query...)
	return Config{Endpoint: "https://" + s.server.URL.Host + "/sdk?" + strings.Join(q, "&"), Credentials: s.creds, Dir: s.dir}
}

func (s *vcsim) open(t testing.TB, query ...string) *Host {
	t.Helper()
	h, err := open(t.Context(), s.config(query...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// raw is what bases hold.
var raw = bytes.Repeat([]byte("a base without a system. "), 41)[:1024]

func (s *vcsim) base(t testing.TB) driver.Content {
	t.Helper()
	return driver.Content{Path: s.file(t, "base.img", string(raw)), Format: estate.Raw, Size: estate.Bytes(len(raw))}
}

// vmOf returns the simulator's own machine of that UUID.
func (s *vcsim) vmOf(id estate.MachineID) *simulator.VirtualMachine {
	for _, o := range s.model.Map().All("VirtualMachine") {
		if v := o.(*simulator.VirtualMachine); v.Config.Uuid == string(id) {
			return v
		}
	}
	return nil
}

// blind makes vCenter lose sight of a machine.
func (s *vcsim) blind(_ context.Context, id estate.MachineID) (see func(), err error) {
	v := s.vmOf(id)
	if v == nil {
		return nil, errors.New("the simulator has no such machine")
	}
	say := func(state types.VirtualMachineConnectionState) {
		ctx := s.model.Service.Context
		ctx.WithLock(v, func() {
			ctx.Update(v, []types.PropertyChange{{Name: "runtime.connectionState", Val: state}})
		})
	}
	say(types.VirtualMachineConnectionStateDisconnected)
	return func() { say(types.VirtualMachineConnectionStateConnected) }, nil
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
	s := serve(t, simulator.ESX())
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
		h, err := open(t.Context(), Config{Endpoint: "https://" + s.server.URL.Host + c.query, Credentials: s.creds})
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
