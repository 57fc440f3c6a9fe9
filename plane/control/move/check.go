package move

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/store"
)

// stock is what there is: an inventory of the machine's project, and the
// machines of all.
type stock struct {
	compose.Inventory
	everywhere []*estate.Machine
}

func (m *Mover) takeStock(ctx context.Context, project string, s *stock) error {
	s.Presentations, s.Deliveries = m.Presentations, m.Deliveries
	for _, err := range []error{
		list(ctx, m.Store, "", &s.Hypervisors), list(ctx, m.Store, "", &s.Groups),
		list(ctx, m.Store, project, &s.Images), list(ctx, m.Store, project, &s.Applications),
		list(ctx, m.Store, project, &s.Contexts), list(ctx, m.Store, project, &s.Networks),
		list(ctx, m.Store, project, &s.Volumes), list(ctx, m.Store, project, &s.Machines),
		list(ctx, m.Store, project, &s.Grants), list(ctx, m.Store, "", &s.everywhere),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func list[T any](ctx context.Context, s *store.Store, project string, into *[]*T) (err error) {
	*into, _, err = store.List[T](ctx, s, project)
	return err
}

func (s *stock) hypervisor(name string) *estate.Hypervisor {
	for _, h := range s.Hypervisors {
		if h.Metadata.Name == name {
			return h
		}
	}
	return nil
}

// free is the memory that is left on a hypervisor beside every machine that is
// placed there or on its way there.
func (s *stock) free(h *estate.Hypervisor, but *estate.Machine) estate.Bytes {
	free := h.Status.Capacity.Memory
	for _, m := range s.everywhere {
		there := m.Spec.Hypervisor == h.Metadata.Name || m.Spec.Moving != nil && m.Spec.Moving.To == h.Metadata.Name
		if there && m.Metadata.UID != but.Metadata.UID {
			free -= m.Spec.Hardware.Memory
		}
	}
	return max(0, free)
}

// image returns the image whose content has the digest.
func (s *stock) image(d estate.Digest) *estate.Image {
	for _, m := range s.Images {
		if m.Status.Digest == d {
			return m
		}
	}
	return nil
}

// volumes returns the volumes among the machine's disks.
func (t *trip) volumes() []*estate.Volume {
	var all []*estate.Volume
	for _, d := range t.machine.Spec.Hardware.Disks {
		for _, v := range t.stock.Volumes {
			if d.Volume != "" && v.Metadata.Name == d.Volume {
				all = append(all, v)
			}
		}
	}
	return all
}

// staying says what keeps the machine where it is, wherever it is to go.
func (t *trip) staying(req api.MoveRequest) []string {
	m := t.machine
	switch mv := m.Spec.Moving; {
	case !m.Metadata.Deleting.IsZero():
		return []string{"it is being deleted"}
	case mv != nil:
		return []string{fmt.Sprintf("it moves to %s already (operation %s)", mv.To, mv.Operation)}
	case m.Spec.Hypervisor == "":
		return []string{"it is not placed yet; it is placed where it fits when it is turned on"}
	case m.Spec.Sealed:
		return []string{"it is disposable: what it wrote can be read where it runs and nowhere else; throw it away, and make another there"}
	case m.Spec.Adopted:
		return []string{"it was adopted: what its system needs to run elsewhere is not known, and its disks are never touched"}
	}
	var all []string
	from := t.stock.hypervisor(m.Spec.Hypervisor)
	switch {
	case from == nil || from.Status.State == estate.HypervisorLost || from.Status.State == "":
		all = append(all, fmt.Sprintf("the agent of %s does not answer: start it again on that host", m.Spec.Hypervisor))
	default:
		all = append(all, lacks(from, m, estate.CanTransfer, "its disks cannot be taken from there")...)
	}
	all = append(all, t.volumeObstacles(req)...)
	if req.Live {
		all = append(all, t.liveObstacles(from)...)
	}
	return all
}

// volumeObstacles says what keeps the machine's volumes from going along.
func (t *trip) volumeObstacles(req api.MoveRequest) []string {
	m := t.machine
	var all []string
	for _, d := range m.Spec.Hardware.Disks {
		i := slices.IndexFunc(t.stock.Volumes, func(v *estate.Volume) bool { return v.Metadata.Name == d.Volume })
		if d.Volume == "" {
			continue
		}
		if i < 0 {
			all = append(all, "there is no volume "+d.Volume)
			continue
		}
		v := t.stock.Volumes[i]
		if v.Spec.Holder != "" && v.Spec.Holder != estate.MachineID(m.Metadata.UID) {
			all = append(all, fmt.Sprintf("another machine holds volume %s; shut that down first", d.Volume))
		}
		if at := v.Status.Hypervisor; at != "" && at != m.Spec.Hypervisor {
			all = append(all, fmt.Sprintf("volume %s lies on %s", d.Volume, at))
		}
		for _, o := range t.stock.Machines {
			uses := slices.ContainsFunc(o.Spec.Hardware.Disks, func(od estate.Disk) bool { return od.Volume == d.Volume })
			if uses && o.Metadata.UID != m.Metadata.UID && !req.Force {
				all = append(all, fmt.Sprintf("machine %s uses volume %s too, and would be cut off from it on %s; move with --force all the same", o.Metadata.Name, d.Volume, o.Spec.Hypervisor))
			}
		}
	}
	return all
}

// liveObstacles says what keeps the machine from moving while it runs.
func (t *trip) liveObstacles(from *estate.Hypervisor) []string {
	m := t.machine
	var all []string
	if m.Spec.Power != estate.On || m.Status.Power != estate.On {
		all = append(all, "it does not run; move it without --live")
	}
	if len(t.volumes()) > 0 {
		all = append(all, "it has a volume, which does not go along while it runs; move it without --live")
	}
	if len(m.Spec.Layers) > 0 {
		all = append(all, "it has application layers, which do not go along while it runs; move it without --live")
	}
	if from != nil {
		all = append(all, lacks(from, m, estate.CanMoveLive, "")...)
	}
	return all
}

// lacks says that a hypervisor cannot do what the move needs.
func lacks(h *estate.Hypervisor, m *estate.Machine, c estate.Capability, so string) []string {
	can := h.Status.CanFor(m.Spec.Hardware.GuestType, c)
	if can.Has {
		return nil
	}
	text := fmt.Sprintf("%s cannot do %s", h.Metadata.Name, c)
	if can.Reason != "" {
		text += " (" + strings.TrimRight(can.Reason, ".") + ")"
	}
	if so != "" {
		text += ": " + so
	}
	return []string{text}
}

// going says what keeps the machine from going to a hypervisor, what changes by
// it, and the order for it.
func (m *Mover) going(t *trip, to *estate.Hypervisor, req api.MoveRequest) (obstacles, notes []string, order *estate.MoveOrder) {
	from, is := t.machine.Spec.Hypervisor, t.machine.Spec.Hardware.GuestType
	order = &estate.MoveOrder{From: from, To: to.Metadata.Name, Live: req.Live, GuestType: t.typeOn(to, req.GuestType), WasType: is,
		Power: t.machine.Spec.Power, Unverified: req.NoVerify}
	if to.Metadata.Name == from {
		return []string{"it is on " + from + " already"}, nil, order
	}
	foreign := t.guestObstacles(to, order.GuestType)
	if req.Live {
		obstacles = append(obstacles, t.liveTogether(to, order.GuestType)...)
	}
	if order.GuestType != is {
		notes = append(notes, fmt.Sprintf("its type of guest changes from %s to %s", or(is, "the usual one"), or(order.GuestType, "the usual one")))
	}
	t = t.as(order.GuestType)
	obstacles = append(obstacles, lacks(to, t.machine, estate.CanTransfer, "disks cannot be brought there")...)
	obstacles = append(obstacles, t.hardwareObstacles(to)...)
	if req.Force {
		notes = append(notes, foreign...)
	} else {
		obstacles = append(obstacles, foreign...)
	}
	if t.desktop != nil {
		order.Desktop, order.Was = t.desktop.Metadata.Name, t.desktop.Spec.Presentation
		why, note := t.compose(to, order)
		obstacles = append(obstacles, why...)
		notes = append(notes, note...)
	} else {
		obstacles = append(obstacles, t.bareObstacles(to)...)
	}
	order.Untried = t.untried(to)
	return obstacles, notes, order
}

// typeOn is the type of guest that a hypervisor makes of the machine: the one
// asked for, or what it is where that is made too, or the usual one.
func (t *trip) typeOn(to *estate.Hypervisor, asked string) string {
	if is := t.machine.Spec.Hardware.GuestType; asked == "" && slices.Contains(to.Status.GuestTypes, is) {
		return is
	}
	return asked
}

// as is the trip of a machine of that type.
func (t *trip) as(guestType string) *trip {
	there, m := *t, *t.machine
	m.Spec.Hardware.GuestType = guestType
	there.machine = &m
	return &there
}

// liveTogether says why the two hosts do not hand running machines over.
func (t *trip) liveTogether(to *estate.Hypervisor, guestType string) []string {
	gt := t.machine.Spec.Hardware.GuestType
	there := to.Status.CanFor(guestType, estate.CanMoveLive)
	from := t.stock.hypervisor(t.machine.Spec.Hypervisor)
	switch {
	case guestType != gt:
		return []string{"a machine that runs stays of the type of guest that it is; move it without --live"}
	case !there.Has:
		return lacks(to, t.machine, estate.CanMoveLive, "")
	case from == nil || from.Status.CanFor(gt, estate.CanMoveLive).Value != there.Value:
		return []string{fmt.Sprintf("running machines do not move between %s and %s; move it without --live", t.machine.Spec.Hypervisor, to.Metadata.Name)}
	}
	return nil
}

// hardwareObstacles says what of the machine itself a hypervisor does not have.
func (t *trip) hardwareObstacles(to *estate.Hypervisor) []string {
	var all []string
	hw, name := &t.machine.Spec.Hardware, to.Metadata.Name
	if hw.GuestType != "" && !slices.Contains(to.Status.GuestTypes, hw.GuestType) {
		all = append(all, fmt.Sprintf("%s makes no guests of type %s", name, hw.GuestType))
	}
	for _, o := range t.stock.everywhere {
		if o.Spec.Hypervisor == name && estate.Strangers(o.Spec.HostTrust(), t.machine.Spec.HostTrust()) {
			all = append(all, fmt.Sprintf("on %s is machine %s of trust %d, which never shares a host with trust %d", name, o.Metadata.Name, o.Spec.Trust, t.machine.Spec.Trust))
			break
		}
	}
	var need estate.Bytes
	for _, d := range hw.Disks {
		size := d.Size
		if img := t.stock.image(d.Image); img != nil {
			size = max(size, img.Status.Size)
		}
		need += size
	}
	for _, v := range t.volumes() {
		need += v.Spec.Size
	}
	if free := to.Status.Free.Disk; to.Status.Capacity.Disk > 0 && free < need {
		all = append(all, fmt.Sprintf("%s has %d MiB of disk free, %d MiB needed", name, free/estate.MiB, need/estate.MiB))
	}
	if have := t.stock.free(to, t.machine); to.Status.Capacity.Memory > 0 && have < hw.Memory {
		all = append(all, fmt.Sprintf("%s has %d MiB of memory free, %s needed", name, have/estate.MiB, hw.Memory))
	}
	return all
}

// bareObstacles says what keeps a machine without a desktop off a hypervisor.
func (t *trip) bareObstacles(to *estate.Hypervisor) []string {
	var all []string
	hw := &t.machine.Spec.Hardware
	switch {
	case to.Status.State == estate.HypervisorLost || to.Status.State == "":
		all = append(all, fmt.Sprintf("the agent of %s does not answer", to.Metadata.Name))
	case to.Spec.Drain || to.Status.State == estate.HypervisorDraining:
		all = append(all, fmt.Sprintf("%s is being drained and takes nothing new", to.Metadata.Name))
	}
	if c := to.Status.Capacity.CPUs; c > 0 && c < hw.CPUs {
		all = append(all, fmt.Sprintf("%s has %d CPUs, %d needed", to.Metadata.Name, c, hw.CPUs))
	}
	if len(hw.NICs) > 0 {
		all = append(all, lacks(to, t.machine, estate.CanNetwork, "it is on a network")...)
	}
	if len(t.machine.Spec.Layers) > 0 {
		all = append(all, lacks(to, t.machine, estate.CanHotplug, "it has applications")...)
		all = append(all, lacks(to, t.machine, estate.CanGuest, "it has applications")...)
	}
	return all
}

// compose plans the desktop for the hypervisor alone. Where its presentation
// needs what that does not have, one served by the guest is taken instead.
func (t *trip) compose(to *estate.Hypervisor, order *estate.MoveOrder) (obstacles, notes []string) {
	if t.plan == nil {
		return []string{"there is no blueprint " + t.desktop.Spec.Blueprint}, nil
	}
	in := t.stock.Inventory
	in.Hypervisors = []*estate.Hypervisor{to}
	// It goes with its volumes, and needs room as if it were new.
	in.Volumes, in.Machines = nil, nil
	for _, v := range t.stock.Volumes {
		c := *v
		if slices.Contains(t.volumes(), v) {
			c.Status.Hypervisor = order.To
		}
		in.Volumes = append(in.Volumes, &c)
	}
	for _, m := range t.stock.Machines {
		c := *m
		if c.Metadata.UID == t.machine.Metadata.UID {
			c.Spec.Hypervisor = ""
		}
		in.Machines = append(in.Machines, &c)
	}
	ways := []string{"", t.desktop.Spec.Presentation}
	for _, o := range in.Presentations {
		if o.Guest {
			ways = append(ways, o.Name)
		}
	}
	for i, way := range ways {
		d := *t.desktop
		d.Spec.Presentation = way
		_, reasons := compose.Plan(in, t.plan, &d)
		against := append(compose.Blocked(reasons), compose.Waiting(reasons)...)
		if len(against) == 0 {
			return nil, t.reselect(order, way)
		}
		if i == 0 {
			for _, r := range against {
				obstacles = append(obstacles, r.Text)
			}
		}
	}
	return obstacles, nil
}

// reselect notes in the order that the desktop is reached another way there.
func (t *trip) reselect(order *estate.MoveOrder, way string) []string {
	if way == t.desktop.Spec.Presentation {
		return nil
	}
	order.Reselect, order.Presentation = true, way
	own := t.plan.Spec.Presentation
	return []string{fmt.Sprintf("the desktop will be reached by %s instead of %s", or(way, own), or(t.desktop.Spec.Presentation, own))}
}

// guestObstacles says what the machine's system lacks to run on the hypervisor,
// as far as its image tells. It is looked at before anything is carried. What
// the system runs on today is not asked for.
func (t *trip) guestObstacles(to *estate.Hypervisor, guestType string) []string {
	var today string
	if from := t.stock.hypervisor(t.machine.Spec.Hypervisor); from != nil {
		today = from.Status.CanFor(t.machine.Spec.Hardware.GuestType, estate.NeedsDrivers).Value
	}
	var need []string
	for _, n := range strings.Fields(to.Status.CanFor(guestType, estate.NeedsDrivers).Value) {
		if !slices.Contains(strings.Fields(today), n) {
			need = append(need, n)
		}
	}
	var all []string
	for _, d := range t.machine.Spec.Hardware.Disks {
		if len(need) == 0 || d.Volume != "" {
			continue
		}
		img := t.stock.image(d.Image)
		if img == nil || len(img.Status.Guest.Drivers) == 0 {
			all = append(all, fmt.Sprintf("it is not known whether the system on disk %s has the drivers that %s needs (%s); move with --force all the same", d.Name, to.Metadata.Name, strings.Join(need, ", ")))
			continue
		}
		for _, n := range need {
			if !slices.Contains(img.Status.Guest.Drivers, n) {
				all = append(all, fmt.Sprintf("image %s has no %s drivers for its disk and its network card, %s needs them: build it with them, or move with --force", img.Metadata.Name, n, to.Metadata.Name))
			}
		}
	}
	return all
}

// untried says why no command can be run in the guest at the other end, or "".
func (t *trip) untried(to *estate.Hypervisor) string {
	if can := to.Status.CanFor(t.machine.Spec.Hardware.GuestType, estate.CanGuest); !can.Has {
		return fmt.Sprintf("%s cannot run commands in guests (%s)", to.Metadata.Name, strings.TrimRight(can.Reason, "."))
	}
	for _, d := range t.machine.Spec.Hardware.Disks {
		if img := t.stock.image(d.Image); img != nil && img.Status.Guest.Agent {
			return ""
		}
	}
	if t.machine.Status.Guest.Agent {
		return ""
	}
	return "its system has no guest agent that is known"
}
