package compose

import (
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
)

func (c *composition) block(path, format string, args ...any) {
	c.reasons = append(c.reasons, Reason{Path: path, Text: fmt.Sprintf(format, args...)})
}

func (c *composition) wait(path, format string, args ...any) {
	c.reasons = append(c.reasons, Reason{Path: path, Text: fmt.Sprintf(format, args...), Waiting: true})
}

func (c *composition) note(path, format string, args ...any) {
	c.reasons = append(c.reasons, Reason{Path: path, Text: fmt.Sprintf(format, args...), Note: true})
}

func (c *composition) need(name estate.Capability, value, who string) {
	w := want{name, value, who}
	if !slices.Contains(c.wants, w) {
		c.wants = append(c.wants, w)
	}
}

func (c *composition) size() {
	hw, s := &c.plan.Hardware, c.b.Spec.Size
	hw.CPUs, hw.Memory, hw.Screen = s.CPUs, s.Memory, s.Screen
	if hw.CPUs == 0 {
		hw.CPUs = DefaultCPUs
	}
	if hw.Memory == 0 {
		hw.Memory = DefaultMemory
	}
	if hw.Screen.Width == 0 || hw.Screen.Height == 0 {
		hw.Screen = estate.Screen{Width: DefaultWidth, Height: DefaultHeight}
	}
}

func (c *composition) image() {
	name := c.b.Spec.Image
	img, ok := named(c.in.Images, name)
	if !ok {
		c.block("spec.image", "there is no image %s; %s", name, have("images", names(c.in.Images, nil)))
		return
	}
	c.img, c.guest = img, guestOf(img)
	c.plan.Image, c.plan.Guest = img.Status.Digest, c.guest
	if img.Status.Digest == "" {
		c.wait("spec.image", "%s", beingBuilt("image "+name, img.Status.Work, img.Status.Get(estate.Ready)))
	}
	root := estate.Disk{Name: RootDisk, Image: img.Status.Digest}
	if c.d != nil && c.d.Spec.Pool != "" {
		root.Grow = SeatDisk
	}
	c.plan.Hardware.Disks = []estate.Disk{root}
	if !c.guest.Screen {
		c.note("spec.image", "image %s draws no desktop; people will see its text console", name)
	}
}

// guestOf returns what the image offers: of its content, or as its spec
// promises while the content is not there yet.
func guestOf(img *estate.Image) estate.GuestFacts {
	s, g := &img.Spec, img.Status.Guest
	switch {
	case img.Status.Digest != "":
	case s.Recipe != nil:
		g = s.Recipe.Guest
	case s.Import != nil:
		g = s.Import.Guest
	}
	if g.User == "" && s.Recipe != nil {
		g.User = s.Recipe.User // records of older builds do not say
	}
	return g
}

func beingBuilt(what string, w *estate.Work, ready estate.Condition) string {
	switch {
	case w != nil && w.Phase != "":
		return fmt.Sprintf("%s is being built: %s (%d of %d), %d%%", what, w.Phase, w.Step, w.Steps, w.Percent)
	case ready.Status == estate.False && ready.Text != "":
		return fmt.Sprintf("%s has no content yet: %s", what, ready.Text)
	}
	return what + " is waiting to be built"
}

func (c *composition) presentation() {
	name := c.b.Spec.Presentation
	if c.d != nil && c.d.Spec.Presentation != "" {
		name = c.d.Spec.Presentation
	}
	i := slices.IndexFunc(c.in.Presentations, func(o estate.PresentationOffer) bool { return o.Name == name })
	if i < 0 {
		var offered []string
		for _, o := range c.in.Presentations {
			offered = append(offered, o.Name)
		}
		c.block("spec.presentation", "there is no presentation %s; %s", name, have("presentations", offered))
		return
	}
	offer, who := c.in.Presentations[i], "presentation "+name
	if x, ok := named(c.in.Contexts, c.b.Spec.Context); ok && !offer.Keeps && len(x.Spec.Watched()) > 0 {
		c.block("spec.presentation", "%s does not see what crosses, and cannot keep what context %s says of %s; %s",
			who, c.b.Spec.Context, strings.Join(x.Spec.Watched(), ", "), c.keeping())
		return
	}
	c.plan.Presentation = estate.Presentation{Name: name, Protocol: offer.Protocol}
	if !offer.Guest {
		c.need(estate.CanDisplay, offer.Protocol, who)
		return
	}
	if c.img == nil {
		return
	}
	port, ok := serves(c.guest, offer.Protocol)
	if !ok {
		c.block("spec.presentation", "%s needs a guest that serves %s; image %s serves %s; %s", who, offer.Protocol,
			c.b.Spec.Image, served(c.guest), c.others("images that do", func(g estate.GuestFacts) bool { _, ok := serves(g, offer.Protocol); return ok }))
		return
	}
	c.plan.Presentation.Port = port
	if x, ok := named(c.in.Contexts, c.b.Spec.Context); ok && x.Spec.Network == "" {
		c.block("spec.presentation", "%s reaches the guest over a network; context %s has none: give it spec.network, or use a presentation that needs none", who, c.b.Spec.Context)
		return
	}
	c.need(estate.CanNetwork, "", who)
}

// keeping lists the presentations that keep every context.
func (c *composition) keeping() string {
	var all []string
	for _, o := range c.in.Presentations {
		if o.Keeps {
			all = append(all, o.Name)
		}
	}
	if len(all) == 0 {
		return "no presentation here does, choose another context"
	}
	return "choose presentation " + strings.Join(all, " or ") + ", or another context"
}

func serves(g estate.GuestFacts, protocol string) (port int, ok bool) {
	for _, e := range g.Serves {
		if e.Protocol == protocol {
			return e.Port, true
		}
	}
	return 0, false
}

func served(g estate.GuestFacts) string {
	var all []string
	for _, e := range g.Serves {
		all = append(all, e.Protocol)
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}

// others lists the images that would do.
func (c *composition) others(label string, pass func(estate.GuestFacts) bool) string {
	fit := names(c.in.Images, func(m *estate.Image) bool { return pass(guestOf(m)) })
	if len(fit) == 0 {
		return label + ": none"
	}
	return label + ": " + strings.Join(fit, ", ")
}

// have lists what there is instead.
func have(plural string, all []string) string {
	if len(all) == 0 {
		return "there are no " + plural + " yet: apply one first"
	}
	return plural + " there are: " + strings.Join(all, ", ")
}

func (c *composition) context() {
	name := c.b.Spec.Context
	x, ok := named(c.in.Contexts, name)
	if !ok {
		c.block("spec.context", "there is no context %s; %s", name, have("contexts", names(c.in.Contexts, nil)))
		return
	}
	c.plan.Context, c.plan.Trust, c.plan.Network = name, x.Spec.Trust, x.Spec.Network
	c.plan.Disposable = x.Spec.Lifetime == estate.Disposable
	for _, n := range x.Spec.Needs() {
		c.need(n, "", "context "+name)
	}
	if x.Spec.Network == "" {
		return
	}
	for _, other := range c.in.Contexts {
		if other.Spec.Network == x.Spec.Network && other.Metadata.Name != name {
			c.block("spec.context", "network %s is joined by contexts %s and %s, which would meet there; give each a network of its own", x.Spec.Network, name, other.Metadata.Name)
			return
		}
	}
	if _, ok := named(c.in.Networks, x.Spec.Network); !ok {
		c.block("spec.context", "context %s joins network %s, which does not exist; %s", name, x.Spec.Network, have("networks", names(c.in.Networks, nil)))
		return
	}
	c.plan.Hardware.NICs = []estate.NIC{{Network: x.Spec.Network}}
}
