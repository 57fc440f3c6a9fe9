// Package identity gives a guest that goes on from a template an identity of
// its own.
package identity

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"consort.dev/consort/fault"
)

// Identity is what no two guests may share, apart from keys that the guest makes
// itself.
type Identity struct {
	Hostname string
	Machine  string    // 32 hexadecimal digits (machine-id(5))
	Seed     []byte    // at least 32 bytes from the host's random source
	Now      time.Time // what its clock is set to
	Cards    []Card    // network cards that the template had
}

// Card is a network card that has the template's address, if it is there at all.
type Card struct {
	Had, Has string // MAC addresses, in lower case with colons: the template's and its own
}

// done is what the script says last.
const done = "own\n"

//go:embed own.sh
var script string

var (
	hostnameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // a label of RFC 1123
	machineRule  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	cardRule     = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}=([0-9a-f]{2}:){5}[0-9a-f]{2}$`)
)

// Script returns the script that gives the identity. It is run by a shell as
// root and comes on the shell's input, since the seed is a secret: arguments can
// be read by everybody. Takes said what came of it.
func (i Identity) Script() ([]byte, error) {
	switch {
	case !hostnameRule.MatchString(i.Hostname):
		return nil, fault.Invalid.Errorf("%q does not name a host: at most 63 lower-case letters, digits and dashes", i.Hostname)
	case !machineRule.MatchString(i.Machine):
		return nil, fault.Invalid.Errorf("%q is no machine ID: 32 hexadecimal digits", i.Machine)
	case len(i.Seed) < 32:
		return nil, fault.Invalid.Errorf("a seed of %d bytes is too short; at least 32", len(i.Seed))
	}
	var cards []string
	for _, c := range i.Cards {
		pair := c.Had + "=" + c.Has
		if !cardRule.MatchString(pair) {
			return nil, fault.Invalid.Errorf("%q are no two addresses of a network card", pair)
		}
		cards = append(cards, pair)
	}
	return fmt.Appendf(nil, "now=%d.%09d hostname=%s machine=%s seed=%s cards='%s'\n%s",
		i.Now.Unix(), i.Now.Nanosecond(), i.Hostname, i.Machine, hex.EncodeToString(i.Seed), strings.Join(cards, " "), script), nil
}

// steps says what the script was doing when it ended with that code.
var steps = map[int]string{
	10: "set the clock", 11: "mix in the seed", 12: "set the hostname", 13: "write the machine ID",
	14: "make host keys", 15: "restart what holds the old keys", 16: "run what the image has in /etc/consort/identity.d",
	17: "give its network cards their addresses",
}

// Takes says from the script's exit code and output whether the guest has its
// identity.
func Takes(exit int, stdout, stderr []byte) error {
	if exit == 0 && strings.HasSuffix(string(stdout), done) {
		return nil
	}
	step := steps[exit]
	if step == "" {
		step = "take its identity"
	}
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	return fault.Internal.Errorf("the guest did not %s (exit %d): %s", step, exit, lines[len(lines)-1])
}

// Hostname returns a host's name made from a machine's: what a label cannot
// hold becomes a dash.
func Hostname(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else {
			b.WriteByte('-')
		}
	}
	s := strings.Trim(b.String(), "-")
	if s = strings.TrimRight(s[:min(len(s), 63)], "-"); s == "" {
		return "desktop"
	}
	return s
}
