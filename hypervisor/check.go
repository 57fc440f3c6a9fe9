package hypervisor

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// Machine IDs and disk names become file names and words on command lines, so
// they are held to an alphabet here, once, before any driver sees them.
var (
	idRule   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	diskRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

// maxSerial is the length of a virtio disk's serial number (virtio 1.2, 5.2.6.1).
const maxSerial = 20

// maxName is what fits a window's title.
const maxName = 200

// minMemory is the least memory a machine may have.
const minMemory = 16 * estate.MiB

// check returns fault.Invalid with what keeps the host from making the machine.
func (h *Host) check(def driver.Definition) error {
	if t := def.GuestType; t != "" && !slices.Contains(h.desc.GuestTypes, t) {
		return fault.Invalid.Errorf("it makes no guests of type %q; its types are %q", t, h.desc.GuestTypes)
	}
	for _, needs := range []struct {
		asked bool
		what  estate.Capability
	}{{def.Template != "" || slices.ContainsFunc(def.NICs, unplugged), estate.CanInstant}, {def.Sealed, estate.CanEncryptDisk}} {
		if can := h.CanFor(def.GuestType, needs.what); needs.asked && !can.Has {
			return fault.Unsupported.Errorf("it cannot do %s: %s", can.Name, can.Reason)
		}
	}
	return check(def)
}

// check returns fault.Invalid with every broken rule of the definition.
func check(def driver.Definition) error {
	var bad []string
	add := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	if !idRule.MatchString(string(def.ID)) {
		add("%q is not a machine ID: it must be a UUID in lower case", def.ID)
	}
	if strings.ContainsFunc(def.Name, unicode.IsControl) || len(def.Name) > maxName {
		add("%q is not a machine's name: at most %d bytes without control characters", def.Name, maxName)
	}
	if def.CPUs < 1 || def.CPUs > 256 {
		add("%d CPUs are not between 1 and 256", def.CPUs)
	}
	if def.Memory < minMemory || def.Memory%estate.MiB != 0 {
		add("memory of %s is not a whole number of MiB from %s on", def.Memory, minMemory)
	}
	switch def.Firmware {
	case "", estate.BIOS, estate.UEFI:
	default:
		add("firmware %q is neither bios nor uefi", def.Firmware)
	}
	if s := def.Screen; s != (estate.Screen{}) && (s.Width < 320 || s.Width > 7680 || s.Height < 200 || s.Height > 4320) {
		add("a screen of %dx%d is not between 320x200 and 7680x4320", s.Width, s.Height)
	}
	if def.Template != "" && !diskRule.MatchString(def.Template) {
		add("%q does not name a template: lower-case letters, digits and dashes", def.Template)
	}
	if len(def.Disks) == 0 {
		add("a machine needs a disk to boot from")
	}
	seen := map[string]bool{}
	for _, d := range def.Disks {
		if text := diskProblem(d); text != "" {
			add("%s", text)
		}
		if seen[d.Name] {
			add("two disks are named %q", d.Name)
		}
		if def.Sealed && d.File != nil && !d.ReadOnly {
			add("disk %s is a file that would be written to, and a sealed machine leaves nothing behind", d.Name)
		}
		seen[d.Name] = true
	}
	for _, n := range def.NICs {
		if text := nicProblem(n); text != "" {
			add("%s", text)
		}
	}
	if bad == nil {
		return nil
	}
	return fault.Invalid.Errorf("%s", strings.Join(bad, "; "))
}

func diskProblem(d driver.Disk) string {
	switch {
	case !diskRule.MatchString(d.Name) || len(d.Name) > maxSerial:
		return fmt.Sprintf("%q does not name a disk: at most %d lower-case letters, digits and dashes", d.Name, maxSerial)
	case d.Base != nil && d.File != nil:
		return fmt.Sprintf("disk %s has both a base and a file", d.Name)
	case d.Base == nil && d.File == nil && d.Size <= 0:
		return fmt.Sprintf("disk %s is empty and has no size", d.Name)
	case d.Size < 0 || d.Size%512 != 0:
		return fmt.Sprintf("disk %s: a size of %d bytes is not a whole number of sectors", d.Name, d.Size)
	case d.File != nil && d.Size != 0 && d.Size != d.File.Size:
		return fmt.Sprintf("disk %s is a file of %s and cannot be %s", d.Name, d.File.Size, d.Size)
	}
	c := d.Base
	if c == nil {
		c = d.File
	}
	if c == nil {
		return ""
	}
	if !filepath.IsAbs(c.Path) || filepath.Clean(c.Path) != c.Path || strings.ContainsAny(c.Path, "\x00\n") {
		return fmt.Sprintf("disk %s: %q is not a clean absolute path", d.Name, c.Path)
	}
	switch c.Format {
	case estate.Raw, estate.QCOW2, estate.VMDK:
	default:
		return fmt.Sprintf("disk %s: %q is not a disk format we know", d.Name, c.Format)
	}
	if c.Size <= 0 {
		return fmt.Sprintf("disk %s: the size of its content is not recorded", d.Name)
	}
	return ""
}

func nicProblem(n driver.NIC) string {
	mac, err := net.ParseMAC(n.MAC)
	switch {
	case err != nil || len(mac) != 6:
		return fmt.Sprintf("%q is not a MAC address", n.MAC)
	case mac[0]&1 != 0:
		return fmt.Sprintf("MAC address %s is a multicast address", n.MAC)
	case ways(n) != 1:
		return fmt.Sprintf("network card %s needs exactly one of tap, bridge, name and socket, or to be unplugged", n.MAC)
	case n.Netns != "" && n.Tap == "":
		return fmt.Sprintf("network card %s has a namespace and no tap", n.MAC)
	case len(n.Tap) > 15 || len(n.Bridge) > 15:
		return fmt.Sprintf("network card %s: %q is too long for the name of a device", n.MAC, n.Tap+n.Bridge)
	}
	return ""
}

// ways counts by how many ways the card is joined to something.
func ways(n driver.NIC) (set int) {
	for _, way := range []string{n.Tap, n.Bridge, n.Name, n.Socket} {
		if way != "" {
			set++
		}
	}
	if n.Unplugged {
		set++
	}
	return set
}

func unplugged(n driver.NIC) bool { return n.Unplugged }
