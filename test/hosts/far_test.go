package hosts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"consort.dev/consort/agent/badge"
	"consort.dev/consort/agent/network"
	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/image"
	"consort.dev/consort/internal/rfb"
	"consort.dev/consort/plane/store"
	"consort.dev/consort/test/island"
)

// far is a plane, a host near it that has content, and one that it cannot reach,
// with a machine on it.
type far struct {
	*plane
	*island.Place
	layer estate.Digest
}

func newFar(t *testing.T) *far {
	t.Helper()
	place := island.New(t)
	f := &far{plane: newPlane(t, place.Here+":0", 0), Place: place}
	f.near()
	state := t.TempDir()
	f.agent(state, "https://"+f.at, f.token("far"))
	took := f.until("far has joined", soon, func() bool { return f.joined("far") })
	t.Logf("joined after %s", took)
	f.order(state)
	return f
}

// agent starts the agent in the namespace.
func (h *far) agent(state, join, token string) {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	c := h.Inside(self)
	log, err := os.Create(filepath.Join(state, "log"))
	if err != nil {
		h.t.Fatal(err)
	}
	c.Env = append(os.Environ(), "CONSORT_TEST_AGENT="+state, "CONSORT_TEST_JOIN="+join, "CONSORT_TEST_TOKEN="+token)
	c.Stderr = log
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		log.Close()
		if h.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			h.t.Logf("the agent's log:\n%s", text[max(0, len(text)-4000):])
		}
		nets, err := network.Open(filepath.Join(state, "network"))
		if err == nil {
			err = nets.Close(context.Background())
		}
		if err != nil {
			h.t.Error(err)
		}
	})
}

// near starts a host in this process that has an image and a layer.
func (f *far) near() {
	t, p := f.t, f.plane
	state := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	b, err := badge.Join(ctx, state, "https://"+p.at, p.token("near"), time.Now)
	p.must(err)
	client, err := api.NewClient(api.Options{Server: b.Plane(), TLS: b.TLS()})
	p.must(err)
	a, err := newAgent(ctx, "near", state, client)
	p.must(err)
	disk := filepath.Join(state, "disk.raw")
	p.must(os.WriteFile(disk, bytes.Repeat([]byte("system"), 1<<18), 0o600))
	p.must(p.store.Create(ctx, &estate.Image{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Image", Metadata: estate.Metadata{Name: "office", Project: "p"}},
		Spec: estate.ImageSpec{Import: &estate.Import{Path: disk, Format: estate.Raw}},
	}))
	rec, err := a.Images.Put(ctx, strings.NewReader(strings.Repeat("layer ", 1024)), image.Record{Kind: image.KindLayer, Format: estate.Raw, Size: 6144})
	p.must(err)
	f.layer = rec.Digest
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx) // ends with ctx
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		client.Close()
		p.must(a.Network.Close(context.Background()))
	})
	p.until("near has the image", soon, func() bool {
		m, err := store.Get[estate.Image](t.Context(), p.store, "p", "office")
		return err == nil && m.Status.Digest != ""
	})
}

// order puts a machine on far: its system and its layer are near's, and it has
// a network whose guest answers at a port.
func (f *far) order(state string) {
	t, p := f.t, f.plane
	ctx := t.Context()
	img, err := store.Get[estate.Image](ctx, p.store, "p", "office")
	p.must(err)
	for _, r := range []estate.Resource{
		&estate.Network{
			Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Network", Metadata: estate.Metadata{Name: "lan", Project: "p"}},
			Spec: estate.NetworkSpec{Subnet: "10.97.3.0/24"},
		},
		&estate.Application{
			Head:   estate.Head{APIVersion: estate.APIVersion, Kind: "Application", Metadata: estate.Metadata{Name: "calc", Project: "p"}},
			Spec:   estate.ApplicationSpec{Title: "Calc", Delivery: "fakeapps", Command: []string{"calc"}, Versions: []estate.ApplicationVersion{{Name: "1", Packages: []string{"calc"}}}},
			Status: estate.ApplicationStatus{Layers: []estate.LayerBuild{{Version: "1", Image: img.Status.Digest, Digest: f.layer, Size: 6144}}},
		},
		&estate.Machine{
			Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{Name: "far-desk", Project: "p"}},
			Spec: estate.MachineSpec{
				Hypervisor: "far", Epoch: 1, Power: estate.On,
				Hardware: estate.Hardware{
					CPUs: 1, Memory: estate.GiB, Disks: []estate.Disk{{Name: "root", Image: img.Status.Digest}}, NICs: []estate.NIC{{Network: "lan"}},
				},
				Layers: []estate.Layer{{Application: "calc", Version: "1", Digest: f.layer, Delivery: "fakeapps"}},
			},
		},
	} {
		p.must(p.store.Create(ctx, r))
	}
	p.until("the machine runs", soon, func() bool { return p.machine().Status.Power == estate.On })
	pids, err := filepath.Glob(filepath.Join(state, "network", "*.pid"))
	if err != nil || len(pids) != 1 {
		t.Fatalf("networks of far: %q, %v", pids, err)
	}
	ns := strings.TrimSuffix(filepath.Base(pids[0]), ".pid")
	f.IP("-n", ns, "addr", "add", "10.97.3.50/24", "dev", "br0")
	lease := fmt.Sprintf("0 %s 10.97.3.50 far-desk *\n", estate.MACFor(estate.MachineID(p.machine().Metadata.UID), 0))
	p.must(os.WriteFile(strings.TrimSuffix(pids[0], ".pid")+".leases", []byte(lease), 0o644))
	island.Greet(t, ns, "10.97.3.50:22")
}

// call reaches the machine, as the gateway does.
func (f *far) call(verb api.Verb, port int) (net.Conn, error) {
	return f.calls.Dial(f.t.Context(), "far", api.Call{Verb: verb, Port: port, Machine: estate.MachineID(f.machine().Metadata.UID)})
}

// screen opens the machine's display and draws its first frame.
func (f *far) screen() (*rfb.Client, error) {
	conn, err := f.call(api.CallDisplay, 0)
	if err != nil {
		return nil, err
	}
	f.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(healed))
	c, err := rfb.NewClient(conn, rfb.Proof{})
	if err != nil {
		return nil, err
	}
	return c, draw(c)
}

func draw(c *rfb.Client) error {
	if err := c.Request(false); err != nil {
		return err
	}
	return c.NextFrame()
}

// works shows that a display, a forward and a layer flow.
func (f *far) works() {
	t := f.t
	t.Helper()
	f.until("the display is drawn", healed, func() bool {
		_, err := f.screen()
		return err == nil
	})
	f.until("a port of the guest answers", healed, func() bool {
		conn, err := f.call(api.CallPort, 22)
		if err != nil {
			return false
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		said, _ := io.ReadAll(conn)
		return string(said) == island.Greeting
	})
	f.until("the layer is attached", healed, func() bool {
		l := f.machine().Status.Layers
		return len(l) == 1 && l[0].Attached && l[0].Digest == f.layer
	})
}
