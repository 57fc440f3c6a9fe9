package estate

import (
	"fmt"
	"path"
	"strings"
)

// Image is a bootable system, built from a recipe or imported.
type Image struct {
	Head
	Spec   ImageSpec   `json:"spec"`
	Status ImageStatus `json:"status,omitzero"`
}

// ImageSpec says where an image comes from: exactly one of the two.
type ImageSpec struct {
	Title  string  `json:"title,omitempty" doc:"What people call it."`
	Recipe *Recipe `json:"recipe,omitempty" doc:"How to build it."`
	Import *Import `json:"import,omitempty" doc:"The file it is made from."`
}

// Recipe says how to build an image from Debian packages.
type Recipe struct {
	Suite    string       `json:"suite" doc:"Debian suite, as bookworm."`
	Packages []string     `json:"packages" doc:"What is installed beyond the smallest system."`
	Files    []RecipeFile `json:"files,omitempty" doc:"Files written after the packages."`
	Enable   []string     `json:"enable,omitempty" doc:"systemd units to enable."`
	Mask     []string     `json:"mask,omitempty" doc:"systemd units to mask."`
	Exclude  []string     `json:"exclude,omitempty" doc:"Paths left out of every package, as globs."`
	Kernel   []string     `json:"kernel,omitempty" doc:"Words added to the kernel's command line."`
	Modules  []string     `json:"modules,omitempty" doc:"Kernel modules kept; all when empty."`
	User     string       `json:"user,omitempty" doc:"The person's account in the guest."`
	Size     Bytes        `json:"size,omitempty" doc:"Size of the disk."`
	Guest    GuestFacts   `json:"guest" doc:"What the built system offers."`
}

// RecipeFile is a file of a recipe.
type RecipeFile struct {
	Path    string `json:"path"`
	Mode    string `json:"mode,omitempty" doc:"Octal; 0644 when empty."`
	Content string `json:"content"`
}

// Import names a disk file on an agent's host.
type Import struct {
	Path   string     `json:"path" doc:"Absolute path on the host of the agent that imports."`
	Format DiskFormat `json:"format" enum:"raw,qcow2,vmdk" doc:"What the file is. It is checked, never guessed."`
	Digest Digest     `json:"digest,omitempty" doc:"What the file must hash to."`
	Guest  GuestFacts `json:"guest" doc:"What the system in it offers."`
}

// DiskFormat is how a disk is laid out in a file. It is always told, never probed.
type DiskFormat string

// The formats.
const (
	Raw   DiskFormat = "raw"
	QCOW2 DiskFormat = "qcow2"
	VMDK  DiskFormat = "vmdk"
)

// GuestFacts is what a system offers to the layers around it.
type GuestFacts struct {
	OS     string     `json:"os,omitempty" doc:"As debian-12."`
	Agent  bool       `json:"agent,omitempty" doc:"A guest agent answers on the virtio-serial port."`
	Screen bool       `json:"screen,omitempty" doc:"A desktop is drawn on the machine's display."`
	Serves []Endpoint `json:"serves,omitempty" doc:"Protocols it serves on its own."`
	User   string     `json:"user,omitempty" doc:"The account the desktop runs under."`
	Home   string     `json:"home,omitempty" doc:"Where a volume named home is mounted; empty when it cannot be."`

	Drivers []string `json:"drivers,omitempty" doc:"What it can boot on: it finds its root and its network card there whatever they are called. Of virtio, nvme, ahci, xenbus, xenpv, vmbus, pvscsi; not known when empty."`
}

// Endpoint is a protocol served on a TCP port.
type Endpoint struct {
	Protocol string `json:"protocol"`
	Port     int    `json:"port" minimum:"1" maximum:"65535"`
}

// ImageStatus is what became of an image.
type ImageStatus struct {
	Progress
	Digest   Digest     `json:"digest,omitempty" doc:"The content; empty until it is there."`
	Format   DiskFormat `json:"format,omitempty" doc:"How the content is laid out, from our record."`
	Size     Bytes      `json:"size,omitempty" doc:"Size of the disk as a guest sees it."`
	Stored   Bytes      `json:"stored,omitempty" doc:"What it takes on disk."`
	Guest    GuestFacts `json:"guest,omitzero"`
	Built    int64      `json:"builtGeneration,omitempty" doc:"The generation the content was made from."`
	Work     *Work      `json:"work,omitempty" doc:"How far building has come."`
	Packages int        `json:"packages,omitempty" doc:"How many packages are installed."`
}

// Work is progress on something long.
type Work struct {
	Phase   string `json:"phase" doc:"The named phase it is in."`
	Step    int    `json:"step" doc:"Which phase, from 1."`
	Steps   int    `json:"steps" doc:"How many phases there are."`
	Percent int    `json:"percent" doc:"Of the whole, 0 to 100."`
}

// Check implements Resource.
func (m *Image) Check() []Problem {
	var c checks
	s := &m.Spec
	switch {
	case (s.Recipe == nil) == (s.Import == nil):
		c.add("spec", "an image has a recipe or an import: set exactly one")
	case s.Recipe != nil:
		s.Recipe.check(&c)
	default:
		s.Import.check(&c)
	}
	return c
}

func (r *Recipe) check(c *checks) {
	c.name("spec.recipe.suite", r.Suite, true)
	for i, p := range r.Packages {
		if !packageName(p) {
			c.add(fmt.Sprintf("spec.recipe.packages[%d]", i), "%q is not a Debian package name", p)
		}
	}
	for i, f := range r.Files {
		p := fmt.Sprintf("spec.recipe.files[%d]", i)
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			c.add(p+".path", "%q is not a clean absolute path", f.Path)
		}
		if len(f.Mode) > 4 || strings.Trim(f.Mode, "01234567") != "" {
			c.add(p+".mode", "%q is not an octal mode; write 0644 or 0755", f.Mode)
		}
	}
	if r.User != "" {
		c.name("spec.recipe.user", r.User, true)
	}
	r.Guest.check(c, "spec.recipe.guest")
}

func (m *Import) check(c *checks) {
	if !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path {
		c.add("spec.import.path", "%q is not a clean absolute path", m.Path)
	}
	oneOf(c, "spec.import.format", m.Format, true, Raw, QCOW2, VMDK)
	if m.Digest != "" && m.Digest.Problem() != "" {
		c.add("spec.import.digest", "%s", m.Digest.Problem())
	}
	m.Guest.check(c, "spec.import.guest")
}

func (g *GuestFacts) check(c *checks, at string) {
	seen := map[string]bool{}
	for i, e := range g.Serves {
		p := fmt.Sprintf("%s.serves[%d]", at, i)
		c.name(p+".protocol", e.Protocol, true)
		if e.Port < 1 || e.Port > 65535 {
			c.add(p+".port", "%d is not a port; use 1 to 65535", e.Port)
		}
		if seen[e.Protocol] {
			c.add(p+".protocol", "%q is served twice", e.Protocol)
		}
		seen[e.Protocol] = true
	}
	for i, d := range g.Drivers {
		oneOf(c, fmt.Sprintf("%s.drivers[%d]", at, i), d, true, "virtio", "nvme", "ahci", "xenbus", "xenpv", "vmbus", "pvscsi")
	}
	if g.Home != "" && (!path.IsAbs(g.Home) || path.Clean(g.Home) != g.Home) {
		c.add(at+".home", "%q is not a clean absolute path", g.Home)
	}
}

// packageName follows Debian policy 5.6.1; it never begins with a dash.
func packageName(s string) bool {
	if len(s) < 2 || s[0] == '-' || s[0] == '+' || s[0] == '.' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// Links implements Resource.
func (m *Image) Links() []Link { return nil }

// Progress implements Resource.
func (m *Image) Progress() *Progress { return &m.Status.Progress }

// packageAtVersion accepts name and name=version as apt reads them.
func packageAtVersion(s string) bool {
	name, version, versioned := strings.Cut(s, "=")
	if !packageName(name) {
		return false
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-:~"
	return !versioned || version != "" && version[0] != '-' && strings.Trim(version, letters) == ""
}
