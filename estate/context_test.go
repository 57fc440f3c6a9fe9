package estate

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestContextRules breaks one rule a row.
func TestContextRules(t *testing.T) {
	good := func() *Context {
		return &Context{Spec: ContextSpec{
			Colour: "#2e6f8e", Trust: 2, Lifetime: Persistent, Network: "lan",
			Egress:    []Egress{{CIDR: "0.0.0.0/0", Ports: []string{"443", "8000-8010", "udp/123"}}, {Domain: "example.org"}},
			Clipboard: Clipboard{In: true, MaxBytes: KiB, Gesture: true, TTL: Duration(time.Minute)},
			Files:     Files{In: true},
			Recording: RecordRequired,
			TimeOuts:  TimeOuts{Idle: Duration(time.Minute), Absolute: Duration(time.Hour)},
		}}
	}
	if p := good().Check(); len(p) != 0 {
		t.Fatalf("a good context breaks rules: %v", p)
	}
	thrown := ContextSpec{Colour: "#2e6f8e", Lifetime: Disposable}
	if p := (&Context{Spec: thrown}).Check(); len(p) != 0 || !slices.Contains(thrown.Needs(), CanEncryptDisk) {
		t.Errorf("a disposable context breaks %v and needs %v", p, thrown.Needs())
	}
	for path, breaks := range map[string]func(*ContextSpec){
		"spec.colour":             func(s *ContextSpec) { s.Colour = "red" },
		"spec.trust":              func(s *ContextSpec) { s.Trust = 4 },
		"spec.lifetime":           func(s *ContextSpec) { s.Lifetime = "for-ever" },
		"spec.network":            func(s *ContextSpec) { s.Network = "No Name" },
		"spec.egress":             func(s *ContextSpec) { s.Network = "" },
		"spec.egress[0]":          func(s *ContextSpec) { s.Egress[0].Domain = "example.org" },
		"spec.egress[0].cidr":     func(s *ContextSpec) { s.Egress[0].CIDR = "198.51.100.1/24" },
		"spec.egress[0].ports[1]": func(s *ContextSpec) { s.Egress[0].Ports[1] = "8010-8000" },
		"spec.egress[1]":          func(s *ContextSpec) { s.Egress[1].Domain = "" },
		"spec.egress[1].domain":   func(s *ContextSpec) { s.Egress[1].Domain = "*.example.org" },
		"spec.printing.out":       func(s *ContextSpec) { s.Printing.Out = true },
		"spec.recording":          func(s *ContextSpec) { s.Recording = "always" },
		"spec.clipboard.ttl":      func(s *ContextSpec) { s.Clipboard.TTL = -1 },
		"spec.timeOuts.idle":      func(s *ContextSpec) { s.TimeOuts.Idle = Duration(2 * time.Hour) },
		"spec.timeOuts.absolute":  func(s *ContextSpec) { s.TimeOuts = TimeOuts{Absolute: -1} },
	} {
		x := good()
		breaks(&x.Spec)
		if p := x.Check(); len(p) != 1 || p[0].Path != path {
			t.Errorf("with a broken %s the problems are %v; want that one", path, p)
		}
	}
}

func TestPortsAreRead(t *testing.T) {
	for text, want := range map[string]PortRange{
		"443": {"tcp", 443, 443}, "tcp/1-65535": {"tcp", 1, 65535}, "udp/53": {"udp", 53, 53},
	} {
		if got, err := ParsePorts(text); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65536", "1-", "-1", "icmp/1", "443,80", "10-9", "443;drop", "99999999999999999999"} {
		if got, err := ParsePorts(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is read as %v, %v; want an error that names it", text, got, err)
		}
	}
}

// TestWatchedNamesWhatSomebodyMustSee changes one rule at a time of a context
// that lets everything cross.
func TestWatchedNamesWhatSomebodyMustSee(t *testing.T) {
	for want, change := range map[string]func(*ContextSpec){
		"":                   func(*ContextSpec) {},
		"clipboard.in":       func(s *ContextSpec) { s.Clipboard.In = false },
		"clipboard.out":      func(s *ContextSpec) { s.Clipboard.Out = false },
		"clipboard.maxBytes": func(s *ContextSpec) { s.Clipboard.MaxBytes = 64 * KiB },
		"clipboard.gesture":  func(s *ContextSpec) { s.Clipboard.Gesture = true },
		"clipboard.ttl":      func(s *ContextSpec) { s.Clipboard.TTL = 1 },
		"watermark":          func(s *ContextSpec) { s.Watermark = true },
		"recording":          func(s *ContextSpec) { s.Recording = RecordRequired },
		"timeOuts.idle":      func(s *ContextSpec) { s.TimeOuts.Idle = 1 },
	} {
		s := ContextSpec{Clipboard: Clipboard{In: true, Out: true, MaxBytes: MiB}, Recording: RecordAllowed}
		change(&s)
		if got := strings.Join(s.Watched(), " "); got != want {
			t.Errorf("Watched = %q, want %q", got, want)
		}
	}
}
