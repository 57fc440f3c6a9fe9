package main

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"consort.dev/consort/agent/confine"
	"consort.dev/consort/application"
	appdriver "consort.dev/consort/application/driver"
	"consort.dev/consort/application/stream"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor"
	hvdriver "consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/hyperv"
	"consort.dev/consort/hypervisor/libvirt"
	"consort.dev/consort/hypervisor/qemu"
	"consort.dev/consort/hypervisor/remote"
	"consort.dev/consort/hypervisor/vsphere"
	"consort.dev/consort/hypervisor/xen"
	"consort.dev/consort/internal/kvmprobe"
	"consort.dev/consort/presentation"
	presdriver "consort.dev/consort/presentation/driver"
	"consort.dev/consort/presentation/rdp"
	"consort.dev/consort/presentation/vnc"
)

// The providers this build has: the only place that names them.

// site is where a hypervisor is and where what we keep of it goes.
type site struct {
	dir         string // its state
	run         string // its sockets; the path is short
	endpoint    string // where its API is reached; empty for that of this host
	credentials string // file with a user and a password, a line each; empty when none are needed
}

// emulator is the program that machines of this host run in.
const emulator = "qemu-system-x86_64"

// hypervisors opens each kind of hypervisor.
var hypervisors = map[string]func(ctx context.Context, at site) (hvdriver.Host, error){
	"qemu": func(ctx context.Context, at site) (hvdriver.Host, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cfg := qemu.Config{
			Dir: filepath.Join(at.dir, "machines"), RunDir: filepath.Join(at.run, "m"),
			Probe: []string{self, probeCommand},
			// Tests and rehearsals put a wrapper here that counts starts. A wrapper
			// is a script, which cannot be confined.
			Program: os.Getenv("CONSORT_QEMU"),
		}
		if cfg.Program == "" {
			cfg.Program = emulator
			c, err := confine.New(ctx, emulator, "--version")
			if err == nil {
				cfg.Confiner = c
			} else if !errors.Is(err, fault.NotFound) { // of which the host has more to say
				return nil, err
			}
		}
		return qemu.Open(ctx, cfg)
	},
	"libvirt": func(ctx context.Context, at site) (hvdriver.Host, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return libvirt.Open(ctx, libvirt.Config{
			Dir: filepath.Join(at.dir, "machines"), Endpoint: at.endpoint, Probe: []string{self, probeCommand},
		})
	},
	"remote": remoteHost,
	"xen": func(ctx context.Context, at site) (hvdriver.Host, error) {
		return xen.Open(ctx, xen.Config{
			Dir: filepath.Join(at.dir, "machines"), RunDir: filepath.Join(at.run, "m"), Endpoint: at.endpoint,
		})
	},
	"hyperv": func(ctx context.Context, at site) (hvdriver.Host, error) {
		return hyperv.Open(ctx, hyperv.Config{Endpoint: at.endpoint, Credentials: at.credentials, Dir: at.dir})
	},
	"vsphere": func(ctx context.Context, at site) (hvdriver.Host, error) {
		return vsphere.Open(ctx, vsphere.Config{Endpoint: at.endpoint, Credentials: at.credentials, Dir: at.dir})
	},
}

// remoteHost reaches a provider that runs as a process of its own, in whatever
// language, on a unix socket of this host.
func remoteHost(ctx context.Context, at site) (hvdriver.Host, error) {
	if at.endpoint == "" {
		return nil, fault.Invalid.Errorf("a provider in another process is reached on a unix socket: name it with --endpoint")
	}
	c, err := remote.Dial(ctx, at.endpoint)
	if err != nil {
		return nil, err
	}
	return c.Host(), nil
}

// probeCommand runs the probe of a hardware accelerator in a process of its own,
// which may hang or die with it.
const probeCommand = "probe-kvm"

// probe is that command.
func probe() *cobra.Command {
	return &cobra.Command{
		Use: probeCommand, Short: "Run a guest's loop on KVM and say how long it took", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return kvmprobe.Child() },
	}
}

// presentations are the ways a desktop reaches a person.
func presentations() []presdriver.Provider {
	return []presdriver.Provider{
		vnc.New(vnc.Config{Random: rand.Reader}),
		rdp.New(),
	}
}

// applications are the ways an application reaches a desktop.
func applications(dir string) []appdriver.Provider {
	return []appdriver.Provider{
		stream.New(stream.Config{Cache: filepath.Join(dir, "packages")}),
	}
}

// openHypervisor opens the provider under the operator's name for it.
func openHypervisor(ctx context.Context, provider, name string, at site) (*hypervisor.Host, error) {
	open, ok := hypervisors[provider]
	if !ok {
		return nil, fault.Invalid.Errorf("there is no hypervisor provider %q; this build has: %s", provider, strings.Join(sortedKeys(hypervisors), ", "))
	}
	drv, err := open(ctx, at)
	if err != nil {
		return nil, err
	}
	return hypervisor.Open(ctx, name, drv)
}

// openPresentations returns the presentations by name.
func openPresentations(ctx context.Context) (map[string]*presentation.Provider, error) {
	all := map[string]*presentation.Provider{}
	for _, d := range presentations() {
		p, err := presentation.Open(ctx, d)
		if err != nil {
			return nil, err
		}
		all[p.Offer().Name] = p
	}
	return all, nil
}

// openApplications returns the application providers by the delivery they are.
func openApplications(ctx context.Context, dir string) (map[string]*application.Provider, error) {
	all := map[string]*application.Provider{}
	for _, d := range applications(dir) {
		p, err := application.Open(ctx, d, application.Deadlines{})
		if err != nil {
			return nil, err
		}
		all[p.Offer().Name] = p
	}
	return all, nil
}

func hypervisorOffers() []estate.HypervisorOffer {
	var all []estate.HypervisorOffer
	for _, name := range sortedKeys(hypervisors) {
		all = append(all, estate.HypervisorOffer{Name: name})
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
