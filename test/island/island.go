// Package island gives tests places that nothing reaches from outside: network
// namespaces with one link, and a filter that drops whatever was not begun
// inside.
package island

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"consort.dev/consort/agent/network"
)

// Place is a network namespace with one link to the namespace of the test.
type Place struct {
	Name string // of the namespace, and of the link's end outside
	Here string // address of that end, where a plane may listen
	Far  string // address of the end inside
	t    *testing.T
}

// New makes a place and shows that it is shut: reached before, and not after.
func New(t *testing.T) *Place {
	t.Helper()
	if testing.Short() {
		t.Skip("makes network namespaces: not with -short")
	}
	if err := network.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	n := os.Getpid()
	net := fmt.Sprintf("10.98.%d.", n%250) // tests of two processes do not meet
	p := &Place{fmt.Sprintf("isle%d", n), net + "1", net + "2", t}
	t.Cleanup(p.remove)
	p.remove()
	p.IP("netns", "add", p.Name)
	p.IP("link", "add", p.Name, "type", "veth", "peer", "name", "eth0", "netns", p.Name)
	p.IP("addr", "add", p.Here+"/30", "dev", p.Name)
	p.IP("link", "set", p.Name, "up")
	p.IP("-n", p.Name, "addr", "add", p.Far+"/30", "dev", "eth0")
	p.IP("-n", p.Name, "link", "set", "lo", "up")
	p.IP("-n", p.Name, "link", "set", "eth0", "up")
	Greet(t, p.Name, p.Far+":7777")
	if !p.reached() {
		t.Fatal("the place cannot be reached even before it is shut: that would prove nothing")
	}
	p.shut()
	if p.reached() {
		t.Fatal("the place can be reached from outside")
	}
	return p
}

func (p *Place) remove() {
	_ = exec.Command("ip", "link", "del", p.Name).Run()
	_ = exec.Command("ip", "netns", "del", p.Name).Run()
}

// IP runs ip, of iproute2.
func (p *Place) IP(args ...string) {
	p.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Link brings the link up, or cuts it.
func (p *Place) Link(up bool) {
	p.t.Helper()
	p.IP("link", "set", p.Name, map[bool]string{true: "up", false: "down"}[up])
}

// Inside returns a command that runs in the namespace.
func (p *Place) Inside(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + p.Name, "--", name}, args...)...)
}

func (p *Place) shut() {
	p.t.Helper()
	rules := "add table inet shut; add chain inet shut in { type filter hook input priority 0; policy drop; }; " +
		"add rule inet shut in iif lo accept; add rule inet shut in ct state established,related accept; " +
		"add chain inet shut through { type filter hook forward priority 0; policy drop; }"
	if out, err := p.Inside("nft", rules).CombinedOutput(); err != nil {
		p.t.Fatalf("nft: %v: %s", err, out)
	}
}

// reached reports whether a connection from the plane's side gets in.
func (p *Place) reached() bool {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		c, err := net.DialTimeout("tcp", p.Far+":7777", 300*time.Millisecond)
		if err == nil {
			c.Close()
			return true
		}
	}
	return false
}

// Greeting is what Greet says.
const Greeting = "inside"

// Greet answers every connection to the address in a namespace until the test
// ends.
func Greet(t *testing.T, namespace, at string) {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	made := make(chan result, 1)
	go func() {
		// The thread keeps the namespace, so it is never unlocked and dies with
		// the goroutine.
		runtime.LockOSThread()
		f, err := os.Open("/run/netns/" + namespace)
		if err != nil {
			made <- result{nil, err}
			return
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			made <- result{nil, err}
			return
		}
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", at)
		made <- result{l, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.l.Close() })
	go func() {
		for {
			c, err := r.l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(Greeting))
			c.Close()
		}
	}()
}
