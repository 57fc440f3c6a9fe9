package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
// is the machine's own start; a snapshot is taken of the machine that is off again.
var workloadsOf = []string{"boot", "cpu", "memory", "switches", "disk", "packets", "tcp", "display", "snapshot"}

// measuredByHost are the workloads that the machine's host measures.
var measuredByHost = []string{api.TrialTCP, api.TrialDisplay, api.TrialSnapshot}

// needs says which ability of a hypervisor a workload takes; the others take none.
var needs = map[string]estate.Capability{
	"packets": estate.CanNetwork, api.TrialTCP: estate.CanNetwork,
	api.TrialDisplay: estate.CanDisplay, api.TrialSnapshot: estate.CanSnapshot,
}

// better says which figures are better when lower; the others when higher.
func better(figure string) estate.Better {
	for _, unit := range []string{"_us", "_ms", "_s"} {
		if strings.HasSuffix(figure, unit) && !strings.HasSuffix(figure, "_per_s") {
			return estate.Lower
		}
	}
	return estate.Higher
}

// How long a guest may take: software emulation inside software emulation is slow.
const (
	bootLimit = 10 * time.Minute // until its agent answers
	drawLimit = 3 * time.Minute  // from then until its desktop is drawn
)

// stand is one hypervisor on trial: a machine of its own, which is on only
// while it is its turn.
type stand struct {
	c       *cli
	o       trialOptions
	client  *api.Client
	on      *estate.Hypervisor
	guest   string // type of guest
	machine estate.Ref
	draws   bool                            // its image has a desktop
	gateway string                          // the host's own address on the guest's network
	turn    string                          // which turn it is, for people
	figures map[string]map[string][]float64 // by workload and figure
	notes   map[string]string               // by workload
	broken  error                           // why it is tried no more
}

// name is what tells the stand from others.
func (s *stand) name() string {
	return strings.TrimSuffix(s.on.Metadata.Name+"-"+s.guest, "-")
}

// tell says what is done, and how long it took once that is known.
func (s *stand) tell(what string, do func() error) error {
	began := time.Now()
	err := do()
	text := fmt.Sprintf("%s  %-14s %-10s %-14s %6.1f s", began.UTC().Format(time.TimeOnly), s.name(), s.turn, what, time.Since(began).Seconds())
	if err != nil {
		text += "  " + err.Error()
	}
	fmt.Fprintln(s.c.err, text)
	return err
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
	s.lacks()
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
	s.draws = img.Status.Guest.Screen
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
	if s.o.network == "" || s.notes["packets"] != "" {
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

// lacks notes each workload that the hypervisor has no ability for.
func (s *stand) lacks() {
	for w, ability := range needs {
		if can := s.on.Status.CanFor(s.guest, ability); !can.Has {
			s.notes[w] = fmt.Sprintf("no %s: %s", ability, orElse(can.Reason, "it does not say why"))
		} else if ability == estate.CanNetwork && s.o.network == "" {
			s.notes[w] = "no network was named: --network"
		}
	}
}

// prepare has the machine defined and booted for the first time, which is not
// measured: the image may have to come from another host. It puts the workloads
// on the disk, and keeps the first snapshot.
func (s *stand) prepare(ctx context.Context, program []byte) error {
	s.turn = "prepare"
	if err := s.tell("define", func() error { return s.define(ctx) }); err != nil {
		return err
	}
	if err := s.tell("first boot", func() error { return s.power(ctx, estate.On) }); err != nil {
		return err
	}
	if err := s.tell("program", func() error { return s.put(ctx, program) }); err != nil {
		return fmt.Errorf("put the workloads into the guest: %w", err)
	}
	if err := s.tell("power off", func() error { return s.power(ctx, estate.Off) }); err != nil {
		return err
	}
	if s.wants(api.TrialSnapshot) {
		_ = s.tell(api.TrialSnapshot, func() error {
			_, err := s.hosted(ctx, api.TrialSnapshot) // there is none to go back to yet
			return s.fails(ctx, api.TrialSnapshot, err)
		})
	}
	return nil
}

// takeTurn powers the machine on, runs every workload and powers it off again.
func (s *stand) takeTurn(ctx context.Context) error {
	began := time.Now()
	if err := s.tell("boot", func() error { return s.power(ctx, estate.On) }); err != nil {
		return err
	}
	if s.wants("boot") {
		s.add("boot", map[string]float64{"boot_to_agent_s": time.Since(began).Seconds()})
	}
	if s.draws {
		// A desktop that still starts would be measured, too.
		if err := s.tell("desktop", func() error { return s.settle(ctx) }); err != nil {
			return err
		}
	}
	for _, w := range workloadsOf[1:] {
		if w == api.TrialSnapshot || !s.wants(w) {
			continue
		}
		s.measure(ctx, w)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if s.wants(api.TrialSnapshot) {
		_ = s.tell("dirt", func() error {
			_, err := s.run(ctx, nil, guestProgram, "dirt", "1s")
			return s.fails(ctx, api.TrialSnapshot, err)
		})
	}
	if err := s.tell("power off", func() error { return s.power(ctx, estate.Off) }); err != nil {
		return err
	}
	if s.wants(api.TrialSnapshot) {
		s.measure(ctx, api.TrialSnapshot)
	}
	return ctx.Err()
}

// measure runs a workload and keeps its figures, or the reason why there are none.
func (s *stand) measure(ctx context.Context, w string) {
	_ = s.tell(w, func() error {
		run := s.workload
		if slices.Contains(measuredByHost, w) {
			run = s.hosted
		}
		f, err := run(ctx, w)
		if err == nil {
			s.add(w, f)
		}
		return s.fails(ctx, w, err)
	})
}

// fails notes why a workload is not tried again; it is not its fault when the
// whole run ends.
func (s *stand) fails(ctx context.Context, w string, err error) error {
	if err != nil && ctx.Err() == nil {
		s.notes[w] = fmt.Sprintf("failed in %s: %v", s.turn, err)
	}
	return err
}

// wants reports whether a workload is asked for and can still be measured.
func (s *stand) wants(workload string) bool {
	return slices.Contains(s.o.workloads, workload) && s.notes[workload] == ""
}

// hosted has the host measure a workload and returns its figures.
func (s *stand) hosted(ctx context.Context, name string) (map[string]float64, error) {
	reply, err := s.client.Trial(ctx, s.machine.Project, s.machine.Name, api.TrialRequest{
		Workload: name, Length: estate.Duration(s.o.seconds * float64(time.Second)), Program: guestProgram,
	})
	if err != nil {
		return nil, err
	}
	return reply.Figures, nil
}

func (s *stand) add(workload string, f map[string]float64) {
	if s.figures[workload] == nil {
		s.figures[workload] = map[string][]float64{}
	}
	for name, v := range f {
		s.figures[workload][name] = append(s.figures[workload][name], v)
	}
}

// power turns the machine on or off and waits until it is: on when its agent
// answers and its network is there.
func (s *stand) power(ctx context.Context, want estate.Power) error {
	_, err := api.Modify(ctx, s.client, s.machine.Project, s.machine.Name, func(m *estate.Machine) error {
		m.Spec.Power = want
		return nil
	})
	if err != nil {
		return err
	}
	return s.await(ctx, "power "+string(want), bootLimit, func(m *estate.Machine) bool {
		st := m.Status
		return st.Power == want && (want == estate.Off || st.Guest.Agent && len(st.Guest.Addresses) >= len(m.Spec.Hardware.NICs))
	})
}

// settle waits until the guest's desktop is drawn.
func (s *stand) settle(ctx context.Context) error {
	return s.await(ctx, "a drawn desktop", drawLimit, func(m *estate.Machine) bool { return m.Status.Guest.Desktop })
}

// await waits until the machine is so.
func (s *stand) await(ctx context.Context, what string, limit time.Duration, so func(*estate.Machine) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last *estate.Machine
	said := ""
	for e := range api.Watch[estate.Machine](ctx, s.client, s.machine.Project) {
		if e.Type != api.Is && e.Type != api.Gone || e.Object.Metadata.Name != s.machine.Name {
			continue
		}
		if e.Type == api.Gone {
			return fault.Conflict.Errorf("somebody deleted %s", s.machine)
		}
		if last = e.Object; so(last) {
			return nil
		}
		if why := last.Status.Waiting; why != said && why != "" {
			fmt.Fprintf(s.c.err, "%s  %-14s %-10s (%s)\n", time.Now().UTC().Format(time.TimeOnly), s.name(), s.turn, why)
			said = why
		}
	}
	text := "it was never told of"
	if last != nil {
		text = progress(last)
	}
	return fault.Unavailable.Errorf("%s did not come to %s in %s: %s", s.machine, what, limit, text)
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
		if s.broken != nil {
			t.Spec.Note = strings.TrimPrefix(t.Spec.Note+"; tried no more since "+s.broken.Error(), "; ")
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
// as asked: interleaved, so that whatever else the host does meets all alike. A
// hypervisor that fails is tried no more and the others go on. What was measured
// by then is given to keep after each round, and when the run ends early.
func (c *cli) trial(ctx context.Context, o trialOptions, keep func([]*estate.Trial) error) (err error) {
	client, err := c.plane()
	if err != nil {
		return err
	}
	program, err := zipped(o.program)
	if err != nil {
		return err
	}
	var stands []*stand
	for _, h := range o.hypervisors {
		s, err := c.newStand(ctx, client, o, h)
		if err != nil {
			return err
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
	for i := range o.repeats + 1 {
		for _, s := range stands {
			if s.broken != nil || ctx.Err() != nil {
				continue
			}
			do := s.takeTurn
			if s.turn = fmt.Sprintf("%d of %d", i, o.repeats); i == 0 {
				do = func(ctx context.Context) error { return s.prepare(ctx, program) }
			}
			if s.broken = do(ctx); s.broken != nil {
				s.giveUp(ctx)
			}
		}
		if err := keep(measured(stands)); err != nil {
			return err
		}
	}
	return verdict(ctx, stands)
}

// giveUp removes the machine of a stand that is tried no more, so that it does
// not load the host while the others are.
func (s *stand) giveUp(ctx context.Context) {
	s.broken = fmt.Errorf("%s: %w", s.turn, s.broken)
	fmt.Fprintf(s.c.err, "%s is tried no more: %v\n", s.name(), s.broken)
	if err := s.client.Delete(context.WithoutCancel(ctx), s.machine, api.Write{}); err != nil && !errors.Is(err, fault.NotFound) {
		fmt.Fprintf(s.c.err, "remove %s: %v\n", s.machine, err)
	}
}

func measured(stands []*stand) []*estate.Trial {
	var all []*estate.Trial
	for _, s := range stands {
		all = append(all, s.trials(time.Now().UTC().Truncate(time.Second))...)
	}
	return all
}

// verdict says which hypervisors failed.
func verdict(ctx context.Context, stands []*stand) error {
	var failed []string
	for _, s := range stands {
		if s.broken != nil {
			failed = append(failed, s.name()+", "+s.broken.Error())
		}
	}
	switch {
	case ctx.Err() != nil:
		return fault.Unavailable.Errorf("the run was ended early; what was measured is kept: %w", context.Cause(ctx))
	case len(failed) > 0:
		return fault.Unavailable.Errorf("%d of %d hypervisors failed; what was measured is kept: %s", len(failed), len(stands), strings.Join(failed, "; "))
	}
	return nil
}
