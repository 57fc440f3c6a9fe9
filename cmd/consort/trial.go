package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// trialOptions are the flags of 'matrix run'.
type trialOptions struct {
	hypervisors []string // NAME or NAME/GUESTTYPE
	workloads   []string
	image       string
	network     string
	program     string // guest/bench, built static
	run         string
	memory      string
	repeats     int
	seconds     float64 // of each workload
}

// workloadsOf are what 'matrix run' knows, in the order in which they run. Boot
// is the machine's own start.
var workloadsOf = []string{"boot", "cpu", "memory", "switches", "disk", "packets"}

// better says which figures are better when lower; the others when higher.
func better(figure string) estate.Better {
	for _, unit := range []string{"_us", "_ms", "_s"} {
		if strings.HasSuffix(figure, unit) && !strings.HasSuffix(figure, "_per_s") {
			return estate.Lower
		}
	}
	return estate.Higher
}

// guestProgram is where the guest finds its workloads.
const guestProgram = "/run/consort-bench"

// bootLimit is how long a guest may take until its agent answers: software
// emulation inside software emulation is slow.
const bootLimit = 15 * time.Minute

// stand is one hypervisor on trial: a machine of its own, which is on only
// while it is its turn.
type stand struct {
	c       *cli
	o       trialOptions
	client  *api.Client
	on      *estate.Hypervisor
	guest   string // type of guest
	machine estate.Ref
	gateway string                          // the host's own address on the guest's network
	figures map[string]map[string][]float64 // by workload and figure
	notes   map[string]string               // by workload
}

// name is what tells the stand from others.
func (s *stand) name() string {
	return strings.TrimSuffix(s.on.Metadata.Name+"-"+s.guest, "-")
}

// newStand checks that the hypervisor can be tried.
func (c *cli) newStand(ctx context.Context, client *api.Client, o trialOptions, which string) (*stand, error) {
	name, guest, _ := strings.Cut(which, "/")
	h, err := api.Get[estate.Hypervisor](ctx, client, "", name)
	if err != nil {
		return nil, c.absent(ctx, client, estate.Ref{Kind: "Hypervisor", Name: name}, err)
	}
	s := &stand{c: c, o: o, client: client, on: h, guest: guest, figures: map[string]map[string][]float64{}, notes: map[string]string{}}
	s.machine = estate.Ref{Kind: "Machine", Project: c.project, Name: "trial-" + s.name()}
	if guest != "" && !slices.Contains(h.Status.GuestTypes, guest) {
		return nil, fault.Invalid.Errorf("hypervisor %s makes no guests of type %s; it makes: %s", name, guest, orElse(strings.Join(h.Status.GuestTypes, ", "), "one type only"))
	}
	if can := h.Status.CanFor(guest, estate.CanGuest); !can.Has {
		return nil, fault.Unsupported.Errorf("hypervisor %s runs no commands in guests, so that nothing can be measured: %s", which, can.Reason)
	}
	return s, nil
}

// define makes the machine, off.
func (s *stand) define(ctx context.Context) error {
	img, err := api.Get[estate.Image](ctx, s.client, s.machine.Project, s.o.image)
	if err != nil {
		return err
	}
	if img.Status.Digest == "" {
		return fault.Unavailable.Errorf("image %s is not made yet: %s", s.o.image, progress(img))
	}
	var memory estate.Bytes
	if err := memory.UnmarshalText([]byte(s.o.memory)); err != nil {
		return fault.Invalid.Errorf("--memory: %w", err)
	}
	m := &estate.Machine{
		Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Machine", Metadata: estate.Metadata{
			Name: s.machine.Name, Project: s.machine.Project, Finalizers: []string{estate.AgentFinalizer},
		}},
		Spec: estate.MachineSpec{
			Only: s.on.Metadata.Name, Power: estate.Off,
			Hardware: estate.Hardware{CPUs: 1, Memory: memory, GuestType: s.guest, Disks: []estate.Disk{{Name: "root", Image: img.Status.Digest}}},
		},
	}
	if m.Spec.Hardware.NICs, err = s.nics(ctx); err != nil {
		return err
	}
	return s.client.Put(ctx, m, api.Write{Create: true})
}

// nics joins the machine to the network, where both can.
func (s *stand) nics(ctx context.Context) ([]estate.NIC, error) {
	can := s.on.Status.CanFor(s.guest, estate.CanNetwork)
	switch {
	case s.o.network == "":
		s.notes["packets"] = "no network was named: --network"
		return nil, nil
	case !can.Has:
		s.notes["packets"] = "its machines join no network: " + can.Reason
		return nil, nil
	}
	n, err := api.Get[estate.Network](ctx, s.client, s.machine.Project, s.o.network)
	if err != nil {
		return nil, err
	}
	subnet, err := netip.ParsePrefix(n.Spec.Subnet)
	if err != nil {
		return nil, err
	}
	s.gateway = subnet.Addr().Next().String()
	return []estate.NIC{{Network: s.o.network}}, nil
}

// turn powers the machine on, runs every workload and powers it off again.
func (s *stand) turn(ctx context.Context, program []byte) error {
	began := time.Now()
	if err := s.power(ctx, estate.On); err != nil {
		return err
	}
	up := time.Since(began)
	if s.wants("boot") {
		s.add("boot", map[string]float64{"boot_to_agent_s": up.Seconds()})
	}
	if _, err := s.run(ctx, program, "sh", "-c", "gunzip > "+guestProgram+" && chmod 755 "+guestProgram); err != nil {
		return fmt.Errorf("put the workloads into the guest: %w", err)
	}
	for _, w := range workloadsOf[1:] {
		if !s.wants(w) || s.notes[w] != "" {
			continue
		}
		s.c.note("%s: %s", s.name(), w)
		f, err := s.workload(ctx, w)
		if err != nil {
			s.notes[w] = err.Error()
			continue
		}
		s.add(w, f)
	}
	return s.power(ctx, estate.Off)
}

func (s *stand) wants(workload string) bool { return slices.Contains(s.o.workloads, workload) }

func (s *stand) add(workload string, f map[string]float64) {
	if s.figures[workload] == nil {
		s.figures[workload] = map[string][]float64{}
	}
	for name, v := range f {
		s.figures[workload][name] = append(s.figures[workload][name], v)
	}
}

// workload runs one in the guest and returns its figures.
func (s *stand) workload(ctx context.Context, name string) (map[string]float64, error) {
	args := []string{guestProgram, name, fmt.Sprintf("%gs", s.o.seconds)}
	if name == "packets" {
		args = append(args, s.gateway)
	}
	out, err := s.run(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	var f map[string]float64
	return f, json.Unmarshal(out, &f)
}

// run runs a command in the guest; one that ends unequal to zero is an error.
func (s *stand) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	out, err := s.client.Run(ctx, s.machine.Project, s.machine.Name, api.RunRequest{Args: args, Stdin: stdin})
	if err != nil {
		return nil, err
	}
	if out.Exit != 0 {
		return nil, fmt.Errorf("%s ended with %d: %s", strings.Join(args, " "), out.Exit, bytes.TrimSpace(out.Stderr))
	}
	return out.Stdout, nil
}

// power turns the machine on or off and waits until it is: on when its agent answers.
func (s *stand) power(ctx context.Context, want estate.Power) error {
	s.c.note("%s: power %s", s.name(), want)
	_, err := api.Modify(ctx, s.client, s.machine.Project, s.machine.Name, func(m *estate.Machine) error {
		m.Spec.Power = want
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	var last *estate.Machine
	for e := range api.Watch[estate.Machine](ctx, s.client, s.machine.Project) {
		if e.Type != api.Is || e.Object.Metadata.Name != s.machine.Name {
			continue
		}
		last = e.Object
		st := last.Status
		if st.Power == want && (want == estate.Off || st.Guest.Agent && len(st.Guest.Addresses) >= len(last.Spec.Hardware.NICs)) {
			return nil
		}
	}
	text := "it was never told of"
	if last != nil {
		text = progress(last)
	}
	return fault.Unavailable.Errorf("%s did not come to power %s: %s", s.machine, want, text)
}

// trials are what was measured, one for each workload.
func (s *stand) trials(at time.Time) []*estate.Trial {
	var out []*estate.Trial
	for _, w := range s.o.workloads {
		t := &estate.Trial{
			Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Trial", Metadata: estate.Metadata{Name: s.o.run + "-" + s.name() + "-" + w}},
			Spec: estate.TrialSpec{
				Run: s.o.run, Hypervisor: s.on.Metadata.Name, Product: s.on.Status.Product, Accelerator: s.on.Status.Accelerator,
				GuestType: s.guest, Workload: w, At: at, Note: s.notes[w],
			},
		}
		for _, name := range sortedKeys(s.figures[w]) {
			t.Spec.Figures = append(t.Spec.Figures, estate.Figure{Name: name, Better: better(name), Samples: s.figures[w][name]})
		}
		if len(t.Spec.Figures) == 0 && t.Spec.Note == "" {
			t.Spec.Note = "it never ran"
		}
		out = append(out, t)
	}
	return out
}

// trial runs every workload on every hypervisor, one after the other, as often
// as asked: interleaved, so that whatever else the host does meets all alike.
func (c *cli) trial(ctx context.Context, o trialOptions) ([]*estate.Trial, error) {
	client, err := c.plane()
	if err != nil {
		return nil, err
	}
	program, err := zipped(o.program)
	if err != nil {
		return nil, err
	}
	var stands []*stand
	for _, h := range o.hypervisors {
		s, err := c.newStand(ctx, client, o, h)
		if err != nil {
			return nil, err
		}
		stands = append(stands, s)
	}
	defer func() {
		for _, s := range stands {
			if err := client.Delete(context.WithoutCancel(ctx), s.machine, api.Write{}); err != nil && !errors.Is(err, fault.NotFound) {
				fmt.Fprintf(c.err, "remove %s: %v\n", s.machine, err)
			}
		}
	}()
	for _, s := range stands {
		if err := s.define(ctx); err != nil {
			return nil, fmt.Errorf("hypervisor %s: %w", s.name(), err)
		}
	}
	for i := range o.repeats {
		for _, s := range stands {
			c.note("repeat %d of %d: %s", i+1, o.repeats, s.name())
			if err := s.turn(ctx, program); err != nil {
				return nil, fmt.Errorf("hypervisor %s, repeat %d: %w", s.name(), i+1, err)
			}
		}
	}
	var all []*estate.Trial
	for _, s := range stands {
		all = append(all, s.trials(time.Now().UTC().Truncate(time.Second))...)
	}
	return all, nil
}

// zipped returns the file's bytes, made smaller: consoles are slow.
func zipped(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Invalid.Errorf("the guest's workloads: %w; build them with 'make build', or name the program with --program", err)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
