package estate

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Context is a security compartment.
type Context struct {
	Head
	Spec   ContextSpec `json:"spec"`
	Status Bare        `json:"status,omitzero"`
}

// ContextSpec is what may cross a compartment's border. What is not allowed is
// denied.
type ContextSpec struct {
	Title     string    `json:"title,omitempty"`
	Colour    string    `json:"colour" doc:"Six hexadecimal digits after #; drawn around its desktops."`
	Trust     int       `json:"trust" minimum:"0" maximum:"3" doc:"0 trusts nothing, 3 guards what matters most. The two never share a host."`
	Lifetime  Lifetime  `json:"lifetime,omitempty" doc:"How long the system disk lives: persistent, also when empty, or disposable. session is not built yet."`
	Network   string    `json:"network,omitempty" doc:"What its machines join; none when empty. It is this context's alone."`
	Egress    []Egress  `json:"egress,omitempty" doc:"Where its machines may go, by a network that has a way out; nowhere when empty."`
	Clipboard Clipboard `json:"clipboard,omitzero"`
	Files     Files     `json:"files,omitzero"`
	Printing  Printing  `json:"printing,omitzero"`
	Watermark bool      `json:"watermark,omitempty" doc:"Who looks, at what and when is drawn into the picture."`
	Recording Recording `json:"recording,omitempty" enum:"never,allowed,required" doc:"Whether what is shown is kept; never when empty."`
	TimeOuts  TimeOuts  `json:"timeOuts,omitzero"`
}

// Lifetime is how long a desktop's system disk lives.
type Lifetime string

// The lifetimes. Others are refused until something keeps what they promise.
const (
	Persistent Lifetime = "persistent" // until a reset or a new image
	Disposable Lifetime = "disposable" // until the session ends; written with a key that is lost then
)

// ClipboardBytes is what a text on the clipboard may hold where MaxBytes is 0.
const ClipboardBytes = MiB

// Clipboard is what the clipboard may carry.
type Clipboard struct {
	In       bool     `json:"in,omitempty" doc:"From the person's device to the desktop."`
	Out      bool     `json:"out,omitempty" doc:"From the desktop to the person's device."`
	MaxBytes Bytes    `json:"maxBytes,omitempty" doc:"Longest text that crosses; 1Mi when empty."`
	Gesture  bool     `json:"gesture,omitempty" doc:"Nothing crosses until the person asks for it, each time."`
	TTL      Duration `json:"ttl,omitempty" doc:"How long a text that crossed may be pasted; until the next when empty."`
}

// Files is which files may be carried between the person's device and the desktop.
type Files struct {
	In       bool  `json:"in,omitempty" doc:"From the person's device to the desktop."`
	Out      bool  `json:"out,omitempty" doc:"From the desktop to the person's device."`
	MaxBytes Bytes `json:"maxBytes,omitempty" doc:"Largest file that crosses; 64Mi when empty."`
}

// Printing is what may be printed.
type Printing struct {
	Out bool `json:"out,omitempty" doc:"From the desktop to the person's printer. Not built yet."`
}

// Recording says whether what a session shows is kept.
type Recording string

// The rules for recording.
const (
	RecordNever    Recording = "never"
	RecordAllowed  Recording = "allowed"  // when the person or an administrator asks for it
	RecordRequired Recording = "required" // a session that cannot be recorded is not begun
)

// TimeOuts is how long sessions last. None ends by itself where nothing is said.
type TimeOuts struct {
	Idle       Duration `json:"idle,omitempty" doc:"A session ends when nothing was typed or pointed at for so long."`
	Disconnect Duration `json:"disconnect,omitempty" doc:"A session that nobody looks at ends after this."`
	Absolute   Duration `json:"absolute,omitempty" doc:"A session ends after this, whatever happens in it."`
}

var colourRule = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

// Check implements Resource.
func (x *Context) Check() []Problem {
	var c checks
	s := &x.Spec
	if !colourRule.MatchString(s.Colour) {
		c.add("spec.colour", "%q is not a colour; write # and six hexadecimal digits, as #2e6f8e", s.Colour)
	}
	if s.Trust < 0 || s.Trust > 3 {
		c.add("spec.trust", "%d is not between 0 and 3", s.Trust)
	}
	switch s.Lifetime {
	case "", Persistent, Disposable:
	case "session":
		c.add("spec.lifetime", "not built yet: write persistent and reset the desktop for a fresh system disk, or disposable")
	default:
		c.add("spec.lifetime", "%q is not a lifetime; write persistent or disposable", string(s.Lifetime))
	}
	c.name("spec.network", s.Network, false)
	if len(s.Egress) > 0 && s.Network == "" {
		c.add("spec.egress", "a context without a network has no way out; set spec.network, or remove spec.egress")
	}
	for i, e := range s.Egress {
		e.check(&c, fmt.Sprintf("spec.egress[%d]", i))
	}
	if s.Printing.Out {
		c.add("spec.printing.out", "not built yet: nothing is printed; remove it")
	}
	oneOf(&c, "spec.recording", s.Recording, false, RecordNever, RecordAllowed, RecordRequired)
	s.checkLengths(&c)
	return c
}

func (s *ContextSpec) checkLengths(c *checks) {
	for _, l := range []struct {
		path string
		of   Duration
	}{
		{"spec.clipboard.ttl", s.Clipboard.TTL},
		{"spec.timeOuts.idle", s.TimeOuts.Idle},
		{"spec.timeOuts.disconnect", s.TimeOuts.Disconnect},
		{"spec.timeOuts.absolute", s.TimeOuts.Absolute},
	} {
		if l.of < 0 {
			c.add(l.path, "%s is less than nothing; write 30s or 8h", l.of)
		}
	}
	if s.TimeOuts.Absolute > 0 && s.TimeOuts.Idle > s.TimeOuts.Absolute {
		c.add("spec.timeOuts.idle", "%s is longer than a session may last, which is %s", s.TimeOuts.Idle, s.TimeOuts.Absolute)
	}
}

// Links implements Resource.
func (x *Context) Links() []Link {
	if x.Spec.Network == "" {
		return nil
	}
	return []Link{{"spec.network", Ref{"Network", x.Metadata.Project, x.Spec.Network}}}
}

// Progress implements Resource.
func (x *Context) Progress() *Progress { return &x.Status.Progress }

// Needs returns what a hypervisor must be able to do to keep the context, by
// its capabilities.
func (s *ContextSpec) Needs() []Capability {
	var needs []Capability
	if s.Lifetime == Disposable {
		needs = append(needs, CanEncryptDisk)
	}
	if s.Network == "" {
		return needs
	}
	needs = append(needs, CanNetwork)
	if len(s.Egress) > 0 || s.Trust >= GuardedTrust {
		needs = append(needs, CanKeepApart)
	}
	if s.Trust >= GuardedTrust {
		needs = append(needs, CanFilter)
	}
	return needs
}

// Watched returns the rules that somebody keeps who sees what crosses between
// viewer and machine, by their paths under spec. A presentation that does not see
// it is for contexts without any.
func (s *ContextSpec) Watched() []string {
	var all []string
	for _, r := range []struct {
		path string
		set  bool
	}{
		{"clipboard.in", !s.Clipboard.In},
		{"clipboard.out", !s.Clipboard.Out},
		{"clipboard.maxBytes", s.Clipboard.MaxBytes != 0 && s.Clipboard.MaxBytes != ClipboardBytes},
		{"clipboard.gesture", s.Clipboard.Gesture},
		{"clipboard.ttl", s.Clipboard.TTL != 0},
		{"watermark", s.Watermark},
		{"recording", s.Recording == RecordRequired},
		{"timeOuts.idle", s.TimeOuts.Idle != 0},
	} {
		if r.set {
			all = append(all, r.path)
		}
	}
	return all
}

// GuardedTrust is the trust from which on a context's machines are held to
// their own addresses, even towards each other.
const GuardedTrust = 2

// Strangers reports whether machines of the two trusts may not share a host:
// whoever breaks out of one that trusts nothing must not find what matters most.
func Strangers(a, b int) bool { return max(a, b)-min(a, b) > TrustGap }

// TrustGap is by how much the trust of machines on one host may differ.
const TrustGap = 2

// HostTrust is the trust that decides what the machine shares a host with. One
// without a context shares it with every other.
func (s *MachineSpec) HostTrust() int {
	if s.Context == "" {
		return 1
	}
	return s.Trust
}

// Egress is somewhere machines may go: addresses or names, by some ports.
type Egress struct {
	CIDR   string   `json:"cidr,omitempty" doc:"IPv4 addresses, as 198.51.100.0/24. Those of private networks are left out unless the prefix lies within one, so 0.0.0.0/0 is the Internet."`
	Domain string   `json:"domain,omitempty" doc:"A name and all below it, as example.org: they are answered, and their addresses may be reached."`
	Ports  []string `json:"ports,omitempty" doc:"As 443, 8000-8010 or udp/123; tcp where no protocol is said. Every port of tcp and udp, and ping, when empty."`
}

// PortRange is some ports of a protocol.
type PortRange struct {
	Protocol    string // tcp or udp
	First, Last uint16
}

var (
	portRule   = regexp.MustCompile(`^(?:(tcp|udp)/)?([0-9]{1,5})(?:-([0-9]{1,5}))?$`)
	domainRule = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// ParsePorts reads one entry of Egress.Ports.
func ParsePorts(text string) (PortRange, error) {
	m := portRule.FindStringSubmatch(text)
	if m == nil {
		return PortRange{}, fmt.Errorf("%q names no ports; write 443, 8000-8010 or udp/123", text)
	}
	var first, last int
	fmt.Sscan(m[2], &first)
	fmt.Sscan(cmp.Or(m[3], m[2]), &last)
	if first < 1 || last > 65535 || last < first {
		return PortRange{}, fmt.Errorf("%q: ports go from 1 to 65535, the lower first", text)
	}
	return PortRange{cmp.Or(m[1], "tcp"), uint16(first), uint16(last)}, nil
}

func (e Egress) check(c *checks, path string) {
	if (e.CIDR == "") == (e.Domain == "") {
		c.add(path, "a way out is for addresses or for a name: set exactly one of cidr and domain")
	}
	if e.CIDR != "" {
		p, err := netip.ParsePrefix(e.CIDR)
		switch {
		case err != nil || !p.Addr().Is4():
			c.add(path+".cidr", "%q is not an IPv4 prefix; write 198.51.100.0/24", e.CIDR)
		case p.Masked() != p:
			c.add(path+".cidr", "%s has host bits set; write %s", p, p.Masked())
		}
	}
	if e.Domain != "" && (len(e.Domain) > 253 || !domainRule.MatchString(e.Domain) || !strings.Contains(e.Domain, ".")) {
		c.add(path+".domain", "%q is not a domain; write example.org, in lower-case letters", e.Domain)
	}
	for i, p := range e.Ports {
		if _, err := ParsePorts(p); err != nil {
			c.add(fmt.Sprintf("%s.ports[%d]", path, i), "%s", err)
		}
	}
}
