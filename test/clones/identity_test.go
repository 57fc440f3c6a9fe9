package clones_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/agent/confine"
	"consort.dev/consort/agent/network"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/guest/identity"
	"consort.dev/consort/hypervisor/driver"
	"consort.dev/consort/hypervisor/qemu"
	"consort.dev/consort/test/guest"
)

const (
	project, lan = "p", "lan"
	// guestBoot is how long the guest may take under emulation on a loaded host.
	guestBoot = 5 * time.Minute
	// atOnce is how many clones run beside each other.
	atOnce = 5
)

// place is a host with a network, and a template on it.
type place struct {
	t     *testing.T
	host  *qemu.Host
	net   *network.Host
	def   driver.Definition // of the template
	knows map[string]string // what the template's guest says it is
}

// TestNoTwoClonesAreAlike makes clones of one template, five at a time, and
// compares all that identifies them, with each other and with the template.
// CONSORT_CLONES says how many.
func TestNoTwoClonesAreAlike(t *testing.T) {
	guest.Needs(t, "ip", "nft", "dnsmasq")
	count := atOnce + 1 // the last one joins after another has left
	if n, err := strconv.Atoi(os.Getenv("CONSORT_CLONES")); err == nil {
		count = n
	}
	p := newPlace(t)
	seen := map[string]string{} // kind and value, to who had it
	for kind, value := range p.knows {
		seen[kind+" "+value] = "the template"
	}
	var mu sync.Mutex
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for n := range count {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			name := fmt.Sprint("clone-", n+1)
			is, err := p.clone(n+1, name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for kind, value := range is {
				if other := seen[kind+" "+value]; other != "" {
					t.Errorf("%s has %s %q, as %s does", name, kind, value, other)
				}
				seen[kind+" "+value] = name
			}
		})
	}
	all.Wait()
}

func newPlace(t *testing.T) *place {
	t.Helper()
	ctx := t.Context()
	if err := network.Probe(ctx); err != nil {
		t.Skip(err)
	}
	small := guest.Build(t, recipe(t))
	dir, err := os.MkdirTemp("", "cln")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o711))
	p := &place{t: t}
	p.net, err = network.Open(filepath.Join(dir, "n"))
	must(t, err)
	t.Cleanup(func() { p.net.Close(context.Background()) })
	must(t, p.net.Ensure(ctx, network.Network{Project: project, Name: lan, Subnet: netip.MustParsePrefix("10.77.0.0/24")}))
	// Confined, as the product has its machines.
	const emulator = "qemu-system-x86_64"
	walls, err := confine.New(ctx, emulator, "--version")
	must(t, err)
	p.host, err = qemu.Open(ctx, qemu.Config{Dir: filepath.Join(dir, "m"), RunDir: filepath.Join(dir, "r"), Program: emulator, Accelerator: "tcg", Confiner: walls})
	must(t, err)
	t.Cleanup(func() {
		all, err := p.host.List(context.Background())
		for _, m := range all {
			err = errors.Join(err, p.host.Delete(context.Background(), m.ID))
		}
		if err := errors.Join(err, p.host.Close()); err != nil {
			t.Error(err)
		}
	})
	base := driver.Content{Path: small.Path, Format: small.Format, Size: small.Size}
	p.def = driver.Definition{ID: machineID(0), Name: "template", CPUs: 1, Memory: 384 * estate.MiB,
		Screen: estate.Screen{Width: 1024, Height: 768}, Disks: []driver.Disk{{Name: "root", Base: &base}},
		NICs: []driver.NIC{{MAC: loose, Unplugged: true}}}
	must(t, errors.Join(p.host.Define(ctx, p.def), p.host.Start(ctx, p.def.ID)))
	must(t, p.awaitDesktop(ctx, p.def.ID))
	p.knows, err = p.ask(ctx, p.def.ID)
	must(t, err)
	begun := time.Now()
	must(t, p.host.Freeze(ctx, p.def.ID, "t"))
	t.Logf("template made in %v: %v", time.Since(begun).Round(time.Millisecond), p.knows)
	return p
}

// loose is the address of the template's network card, which is plugged in nowhere.
const loose = "02:00:00:00:00:01"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func machineID(n int) estate.MachineID {
	return estate.MachineID(fmt.Sprintf("c10e0000-0000-4000-8000-%012d", n))
}

func (p *place) awaitDesktop(ctx context.Context, id estate.MachineID) error {
	tick := time.NewTicker(400 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(guestBoot); ; <-tick.C {
		out, err := p.host.Run(ctx, id, driver.Command{Args: []string{"test", "-e", "/run/consort/desktop"}})
		if err == nil && out.Exit == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("no desktop within %v: %w", guestBoot, err)
		}
	}
}

// questions are what a guest is asked to say of itself, one line each. The first
// key is what its server shows, once that is the one in its file. The last
// is of the kernel's random source: it never says the same twice by itself, so
// that two guests say the same only where they are one.
var questions = []struct{ kind, command string }{
	{"hostname", "hostname"},
	{"machine ID", "cat /etc/machine-id"},
	{"SSH host key", `served=; until [ -n "$served" ] && grep -qF "$served" /etc/ssh/ssh_host_ed25519_key.pub; do
		served=$(ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | cut -d' ' -f3); done; echo $served`},
	{"other SSH host key", "cut -d' ' -f2 /etc/ssh/ssh_host_ecdsa_key.pub"},
	{"shell that drew", "until [ -s /run/user/1000/drawn ]; do sleep 0.1; done; cat /run/user/1000/drawn"},
	{"card's address", "cat /sys/class/net/e*/address"},
	{"random number", "head -c 32 /dev/urandom | sha256sum"},
}

// ask has the guest say who it is.
func (p *place) ask(ctx context.Context, id estate.MachineID) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, guestBoot)
	defer cancel()
	var script strings.Builder
	for _, q := range questions {
		script.WriteString(q.command + "\n")
	}
	out, err := p.host.Run(ctx, id, driver.Command{Args: []string{"/bin/sh"}, Stdin: []byte(script.String())})
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(out.Stdout)), "\n")
	if len(lines) != len(questions) {
		return nil, fmt.Errorf("asked %d things, the guest says %q", len(questions), lines)
	}
	is := map[string]string{}
	for i, q := range questions {
		is[q.kind] = lines[i]
	}
	return is, nil
}

// clone makes the n-th clone, makes it its own, has it join the network, and
// returns all that it is known by.
func (p *place) clone(n int, name string) (is map[string]string, err error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), guestBoot)
	defer cancel()
	id := machineID(n)
	mac := estate.MACFor(id, 0)
	port, err := p.net.Join(ctx, project, lan, network.Card{Machine: id, MAC: estate.MACFor(id, 0)})
	if err != nil {
		return nil, err
	}
	def := p.def
	def.ID, def.Name, def.Template = id, name, "t"
	def.NICs = []driver.NIC{{MAC: mac, Netns: port.Netns, Tap: port.Tap}}
	defer func() {
		after := context.WithoutCancel(ctx)
		err = errors.Join(err, p.host.Delete(after, id), p.net.Leave(after, id))
	}()
	if err := p.host.Define(ctx, def); err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := p.host.Start(ctx, id); err != nil {
		return nil, err
	}
	started := time.Since(begun)
	if err := p.heard(ctx, id); err != nil {
		return nil, err
	}
	if err := p.alone(ctx, id); err != nil {
		return nil, err
	}
	if err := p.identify(ctx, id, name); err != nil {
		return nil, err
	}
	own := time.Since(begun)
	if err := p.host.Join(ctx, id); err != nil {
		return nil, err
	}
	addr, err := p.awaitAddress(ctx, mac)
	if err != nil {
		return nil, err
	}
	p.t.Logf("%s: running after %v, own after %v, on the network after %v", name,
		started.Round(time.Millisecond), own.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	if is, err = p.ask(ctx, id); err == nil {
		is["MAC"], is["address"] = mac, addr.String()
		err = p.isItself(ctx, id, name)
	}
	return is, err
}

// heard waits until the clone's agent, which runs already, has heard of us.
func (p *place) heard(ctx context.Context, id estate.MachineID) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := p.host.Run(ctx, id, driver.Command{Args: []string{"true"}})
		if !errors.Is(err, fault.Unavailable) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// alone checks that a clone that has just been started has no link to any network.
func (p *place) alone(ctx context.Context, id estate.MachineID) error {
	out, err := p.host.Run(ctx, id, driver.Command{Args: []string{"/bin/sh", "-c", "cat /sys/class/net/e*/carrier"}})
	if has := strings.TrimSpace(string(out.Stdout)); err == nil && has != "0" {
		err = fmt.Errorf("before it joins its network cards have links %q", has)
	}
	return err
}

func (p *place) identify(ctx context.Context, id estate.MachineID, name string) error {
	seed := make([]byte, 64)
	rand.Read(seed)
	script, err := identity.Identity{
		Hostname: name, Machine: strings.ReplaceAll(string(id), "-", ""), Seed: seed, Now: time.Now(),
		Cards: []identity.Card{{Had: loose, Has: estate.MACFor(id, 0)}},
	}.Script()
	if err != nil {
		return err
	}
	out, err := p.host.Run(ctx, id, driver.Command{Args: []string{"/bin/sh"}, Stdin: script})
	if err != nil {
		return err
	}
	return identity.Takes(out.Exit, out.Stdout, out.Stderr)
}

func (p *place) awaitAddress(ctx context.Context, mac string) (netip.Addr, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if addr, err := p.net.Address(project, lan, mac); err == nil {
			return addr, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return netip.Addr{}, ctx.Err()
		}
	}
}

// isItself checks what is the host's to give: name, machine ID and clock.
func (p *place) isItself(ctx context.Context, id estate.MachineID, name string) error {
	out, err := p.host.Run(ctx, id, driver.Command{Args: []string{"/bin/sh", "-c", "hostname; cat /etc/machine-id; date +%s"}})
	if err != nil {
		return err
	}
	f := strings.Fields(string(out.Stdout))
	if len(f) != 3 || f[0] != name || f[1] != strings.ReplaceAll(string(id), "-", "") {
		return fmt.Errorf("the guest says it is %q; want %s", f, name)
	}
	now, err := strconv.ParseInt(f[2], 10, 64)
	if off := time.Since(time.Unix(now, 0)).Abs(); err == nil && off > 10*time.Second {
		err = fmt.Errorf("its clock is %v off", off)
	}
	return err
}
