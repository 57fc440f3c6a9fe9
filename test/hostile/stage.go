package hostile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"consort.dev/consort/agent/network"
	"consort.dev/consort/estate"
)

// Stage is two contexts on this host, as the product makes them: a hostile
// machine with a sibling in one, somebody else in the other, and watchers
// wherever something of the first might arrive.
type Stage struct {
	Scene Scene
	nets  *network.Host

	Me, Sibling, Other *Tap
	host, far          *Watch // the host's own links, and those of the other context
	mine, theirs       string // the namespaces
}

const project = "hostile"

// Build makes the stage in dir. Close takes everything away.
func Build(ctx context.Context, dir string) (built *Stage, err error) {
	s := &Stage{}
	if s.nets, err = network.Open(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	web := []estate.Egress{{CIDR: "0.0.0.0/0", Ports: []string{"80", "443"}}}
	for name, subnet := range map[string]string{"personal": "10.98.1.0/24", "corporate": "10.98.2.0/24"} {
		err := s.nets.Ensure(ctx, network.Network{Project: project, Name: name, Subnet: netip.MustParsePrefix(subnet), Egress: true, Ways: web})
		if err != nil {
			return nil, err
		}
	}
	me, meMAC, err := s.join(ctx, "personal", 1)
	if err != nil {
		return nil, err
	}
	sibling, siblingMAC, err := s.join(ctx, "personal", 2)
	if err != nil {
		return nil, err
	}
	other, _, err := s.join(ctx, "corporate", 3)
	if err != nil {
		return nil, err
	}
	s.mine, s.theirs = filepath.Base(me.Netns), filepath.Base(other.Netns)
	s.Scene = Scene{Me: Neighbour{meMAC, me.Addr}, Sibling: Neighbour{siblingMAC, sibling.Addr}, Other: other.Addr}
	if err = s.lookAround(ctx); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		at   network.Port
		into **Tap
	}{{me, &s.Me}, {sibling, &s.Sibling}, {other, &s.Other}} {
		if *p.into, err = Open(p.at.Netns, p.at.Tap); err != nil {
			return nil, err
		}
	}
	if s.host, err = Begin(""); err != nil {
		return nil, err
	}
	if s.far, err = Begin(other.Netns); err != nil {
		return nil, err
	}
	return s, s.count(ctx)
}

// join has the i-th machine join the network.
func (s *Stage) join(ctx context.Context, name string, i int) (network.Port, net.HardwareAddr, error) {
	id := estate.MachineID(fmt.Sprintf("ba5eba11-0000-4000-8000-%012d", i))
	mac := estate.MACFor(id, 0)
	p, err := s.nets.Join(ctx, project, name, network.Card{Machine: id, MAC: mac})
	if err != nil {
		return p, nil, err
	}
	hw, err := net.ParseMAC(mac)
	return p, hw, err
}

// lookAround fills in what the host and the other context are known by.
func (s *Stage) lookAround(ctx context.Context) error {
	sc := &s.Scene
	var err error
	if sc.Gateway.MAC, sc.Gateway.Addr, err = link(ctx, s.mine, "br0"); err != nil {
		return err
	}
	if _, sc.OtherGateway, err = link(ctx, s.theirs, "br0"); err != nil {
		return err
	}
	_, inner, err := link(ctx, s.mine, "up0")
	if err != nil {
		return err
	}
	sc.OwnLink = inner.Prev()
	if _, sc.OtherLink, err = link(ctx, s.theirs, "up0"); err != nil {
		return err
	}
	sc.Host = sc.OwnLink
	all, err := net.InterfaceAddrs()
	for _, a := range all {
		p, e := netip.ParsePrefix(a.String())
		if e == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() && !netip.MustParsePrefix("100.64.0.0/10").Contains(p.Addr()) {
			sc.Host = p.Addr()
		}
	}
	return err
}

func link(ctx context.Context, ns, name string) (net.HardwareAddr, netip.Addr, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", ns, "-json", "addr", "show", "dev", name).Output()
	var all []struct {
		Address string
		Info    []struct{ Local netip.Addr } `json:"addr_info"`
	}
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil || len(all) == 0 || len(all[0].Info) == 0 {
		return nil, netip.Addr{}, fmt.Errorf("look at %s in %s: %w", name, ns, err)
	}
	mac, err := net.ParseMAC(all[0].Address)
	return mac, all[0].Info[0].Local, err
}

// count counts what the host takes in from the hostile machine's network, after
// every filter.
func (s *Stage) count(ctx context.Context) error {
	return nft(ctx, s.mine, "add table inet watch; add chain inet watch in { type filter hook input priority 10; }; add rule inet watch in iifname br0 counter")
}

var packets = regexp.MustCompile(`counter packets ([0-9]+)`)

func (s *Stage) taken(ctx context.Context) (int64, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", s.mine, "nft", "list", "chain", "inet", "watch", "in").Output()
	m := packets.FindSubmatch(out)
	if err != nil || m == nil {
		return 0, fmt.Errorf("count what the host takes in: %w", err)
	}
	return strconv.ParseInt(string(m[1]), 10, 64)
}

// Unfilter takes every filter away, for the positive control.
func (s *Stage) Unfilter(ctx context.Context) error {
	for _, ns := range []string{s.mine, s.theirs} {
		err := errors.Join(nft(ctx, ns, "flush ruleset"), nft(ctx, "", "delete table ip "+ns))
		if err != nil {
			return err
		}
	}
	return s.count(ctx)
}

func nft(ctx context.Context, ns, command string) error {
	args := []string{"nft", command}
	if ns != "" {
		args = append([]string{"ip", "netns", "exec", ns}, args...)
	}
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("nft %s: %w: %s", command, err, out)
	}
	return nil
}

// Outcome is what became of one class.
type Outcome struct {
	Class string
	Tried int64
	// Where frames of it arrived: at a machine of the same context, in the other
	// context, on the host's own links, at the host's end of the network.
	Sibling, Other, Host, Gateway int64
}

// Passed is how many arrived anywhere.
func (o Outcome) Passed() int64 { return o.Sibling + o.Other + o.Host + o.Gateway }

// Fire sends each of the classes so many frames long and says what became of them.
func (s *Stage) Fire(ctx context.Context, each int) ([]Outcome, error) {
	var all []Outcome
	for _, c := range Classes(s.Scene) {
		was, err := s.arrived(ctx)
		if err != nil {
			return all, err
		}
		o := Outcome{Class: c.Name}
		for i := range each {
			// The kernel may refuse what is no frame at all; it was tried.
			_ = s.Me.Send(c.Frame(i))
			o.Tried++
		}
		if err := Settle(s.Scene, s.Me, s.Sibling); err != nil {
			return all, fmt.Errorf("after %s: %w", c.Name, err)
		}
		is, err := s.arrived(ctx)
		if err != nil {
			return all, err
		}
		o.Sibling, o.Other, o.Host, o.Gateway = is[0]-was[0], is[1]-was[1], is[2]-was[2], is[3]-was[3]
		all = append(all, o)
	}
	return all, ctx.Err()
}

// arrived returns what came to each place of an Outcome, once nothing more comes.
func (s *Stage) arrived(ctx context.Context) (now [4]int64, err error) {
	for was := [4]int64{-1}; was != now; time.Sleep(5 * time.Millisecond) {
		was = now
		in, err := s.taken(ctx)
		if err != nil {
			return now, err
		}
		now = [4]int64{s.Sibling.Arrived(), s.Other.Arrived() + s.far.Arrived(), s.host.Arrived(), in}
	}
	return now, nil
}

// Close takes the stage away.
func (s *Stage) Close(ctx context.Context) (err error) {
	for _, t := range []*Tap{s.Me, s.Sibling, s.Other} {
		if t != nil {
			err = errors.Join(err, t.Close())
		}
	}
	for _, w := range []*Watch{s.host, s.far} {
		if w != nil {
			err = errors.Join(err, w.Close())
		}
	}
	return errors.Join(err, s.nets.Close(ctx))
}
