// Package fleet gives tests a whole estate: a plane of the real program, and
// hosts that joined it with hypervisors of every vendor that is real here.
package fleet

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/virtrpc/virtrpctest"
	"consort.dev/consort/test/guest"
	"consort.dev/consort/test/nested"
)

// Fleet is a plane and the hosts that joined it. It ends with its test.
type Fleet struct {
	t      testing.TB
	Dir    string
	Client *api.Client
	agents string // port where agents come in
	up     *Process
}

// Process is a program of the fleet, which tests may kill and start again.
type Process struct {
	t    testing.TB
	args []string
	log  string

	cmd   *exec.Cmd
	ended chan struct{}
}

// Main runs a package's tests, removes the program that they built, and returns
// the exit status.
func Main(m *testing.M) int {
	code := m.Run()
	if !testing.Short() {
		if path, err := program(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
	}
	return code
}

// program builds the product without libc, so that it runs on any host. Main
// removes it.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "consort")
	return path, nested.Program(context.Background(), "consort.dev/consort/cmd/consort", path)
})

// readyLimit is how long a host may take to join: one inside another is slow.
const readyLimit = 4 * time.Minute

// New starts a plane with a hypervisor of its own host, named local.
func New(t testing.TB, apply ...string) *Fleet {
	t.Helper()
	guest.Needs(t)
	dir, err := os.MkdirTemp("", "fl") // short, for unix sockets
	if err == nil {
		err = os.Chmod(dir, 0o711) // open to pass, for machines' users
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &Fleet{t: t, Dir: dir, agents: freePort(t)}
	if f.Client, err = api.NewClient(api.Options{Server: f.socket()}); err != nil {
		t.Fatal(err)
	}
	args := []string{"up", "-v", "--state", filepath.Join(dir, "up"), "--images", filepath.Join(guest.Cache(t), "images"),
		"--listen", "127.0.0.1:0", "--agents", "127.0.0.1:" + f.agents}
	for _, a := range apply {
		args = append(args, "--apply", a)
	}
	f.up = f.Start("up", args...)
	f.joins(f.up, "local")
	f.t.Cleanup(f.clear)
	return f
}

func (f *Fleet) socket() string { return filepath.Join(f.Dir, "up", "run", "api.sock") }

// Plane is the plane's own process, with the agent of local in it.
func (f *Fleet) Plane() *Process { return f.up }

// Start starts the product with the arguments; what it logs is shown when the
// test fails.
func (f *Fleet) Start(name string, args ...string) *Process {
	f.t.Helper()
	path, err := program()
	if err != nil {
		f.t.Fatal(err)
	}
	p := &Process{t: f.t, args: append([]string{path}, args...), log: filepath.Join(f.Dir, name+".log")}
	p.Begin()
	f.t.Cleanup(func() {
		p.Kill()
		if f.t.Failed() {
			b, _ := os.ReadFile(p.log)
			f.t.Logf("the end of what %s logged:\n%s", name, b[max(0, len(b)-3000):])
		}
	})
	return p
}

// Begin starts the process, again after Kill.
func (p *Process) Begin() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(p.cmd, p.ended)
}

// Kill ends the process without a word, as kill -9 does.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// gone reports whether the process has ended.
func (p *Process) gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Token returns a file with a token that lets a host join under the name.
func (f *Fleet) Token(name string) string {
	f.t.Helper()
	token, err := f.Client.JoinToken(f.t.Context(), name, time.Hour)
	if err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.Dir, name+".token")
	if err := os.WriteFile(path, []byte(token.Token+"\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// Join starts an agent on this host that joins under the name.
func (f *Fleet) Join(name, provider, endpoint string) *Process {
	f.t.Helper()
	p := f.Start(name, "agent", "-v", "--join", "https://127.0.0.1:"+f.agents, "--token-file", f.Token(name),
		"--state", filepath.Join(f.Dir, name), "--images", filepath.Join(guest.Cache(f.t), "images"),
		"--provider", provider, "--endpoint", endpoint)
	f.t.Cleanup(f.clear) // while this agent lives
	f.joins(p, name)
	return p
}

// Libvirt joins a real libvirtd of the test's own under the name.
func (f *Fleet) Libvirt(name string) *virtrpctest.Daemon {
	f.t.Helper()
	d := virtrpctest.Start(f.t)
	f.Join(name, "libvirt", "qemu+unix:///system?socket="+d.Socket)
	return d
}

// UML joins the example provider for User-Mode Linux under the name.
func (f *Fleet) UML(name string) {
	f.t.Helper()
	path := filepath.Join(f.Dir, "uml-provider")
	if err := nested.Program(f.t.Context(), "consort.dev/consort/examples/uml-provider", path); err != nil {
		f.t.Fatal(err)
	}
	socket := filepath.Join(f.Dir, "uml.sock")
	p := &Process{t: f.t, args: []string{path, "--dir", filepath.Join(f.Dir, "umls"), "--socket", socket}, log: filepath.Join(f.Dir, "uml-provider.log")}
	p.Begin()
	f.t.Cleanup(p.Kill)
	f.until("the provider answers", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	f.Join(name, "remote", socket)
}

// Nested joins a host that runs inside this one, whose agent runs in there.
func (f *Fleet) Nested(name, provider, endpoint string, h *nested.Host) {
	f.t.Helper()
	path, err := program()
	if err != nil {
		f.t.Fatal(err)
	}
	ctx := f.t.Context()
	if err := h.Put(ctx, path, "/usr/local/bin/consort", 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := h.Put(ctx, f.Token(name), "/run/token", 0o600); err != nil {
		f.t.Fatal(err)
	}
	// 10.0.2.2 is this host, seen from inside.
	h.Must(f.t, "sh", "-c", fmt.Sprintf("setsid consort agent -v --join https://10.0.2.2:%s --token-file /run/token --state /srv/consort "+
		"--provider %s --endpoint %q > /run/agent.log 2>&1 < /dev/null &", f.agents, provider, endpoint))
	f.t.Cleanup(func() {
		if f.t.Failed() {
			out, err := h.Run(context.WithoutCancel(ctx), nil, "tail", "-c", "3000", "/run/agent.log")
			f.t.Logf("the end of what %s logged: %v\n%s", name, err, out.Stdout)
		}
	})
	f.Ready(name)
}

// Ready waits until the hypervisors have joined and are ready.
func (f *Fleet) Ready(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.until(name+" is ready", func() bool { return f.ready(name) })
	}
}

func (f *Fleet) ready(name string) bool {
	h, err := api.Get[estate.Hypervisor](f.t.Context(), f.Client, "", name)
	return err == nil && h.Status.State == estate.HypervisorReady
}

// joins waits until the process has brought the hypervisor in.
func (f *Fleet) joins(p *Process, name string) {
	f.t.Helper()
	f.until(name+" is ready, or its process gone", func() bool { return f.ready(name) || p.gone() })
	if p.gone() {
		f.t.Fatalf("%v ended", p.args[:2])
	}
}

// image waits until an image is made, which takes minutes the first time.
func (f *Fleet) image(name string) (img *estate.Image) {
	f.t.Helper()
	f.within(10*time.Minute, "image "+name+" is made", func() bool {
		var err error
		img, err = api.Get[estate.Image](f.t.Context(), f.Client, "default", name)
		return err == nil && img.Status.Digest != ""
	})
	return img
}

func (f *Fleet) until(what string, so func() bool) {
	f.t.Helper()
	f.within(readyLimit, what, so)
}

func (f *Fleet) within(limit time.Duration, what string, so func() bool) {
	f.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); !so(); <-tick.C {
		if time.Now().After(end) {
			f.t.Fatalf("not so after %v: %s", limit, what)
		}
	}
}

// Consort runs a command of the product and returns what it prints.
func (f *Fleet) Consort(args ...string) (string, error) {
	path, err := program()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(f.t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "CONSORT_SERVER="+f.socket())
	var out, wrong bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &wrong
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("consort %s: %w: %s", strings.Join(args, " "), err, wrong.String())
	}
	return out.String(), nil
}

// Must is Consort for commands that have to succeed.
func (f *Fleet) Must(args ...string) string {
	f.t.Helper()
	out, err := f.Consort(args...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// clear removes desktops and machines while their agents can, and then what
// is left of this test's processes.
func (f *Fleet) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	pools, _, _ := api.List[estate.Pool](ctx, f.Client, api.Filter{})
	for _, p := range pools { // which would make other seats
		f.Client.Delete(ctx, p.Ref(), api.Write{})
	}
	for ctx.Err() == nil {
		desktops, _, err := api.List[estate.Desktop](ctx, f.Client, api.Filter{})
		if err != nil {
			break
		}
		machines, _, err := api.List[estate.Machine](ctx, f.Client, api.Filter{})
		if err != nil || len(desktops)+len(machines) == 0 {
			break
		}
		for _, d := range desktops {
			f.Client.Delete(ctx, d.Ref(), api.Write{})
		}
		for _, m := range machines {
			f.Client.Delete(ctx, m.Ref(), api.Write{})
		}
		select {
		case <-ctx.Done():
			f.t.Error("machines are left")
		case <-time.After(200 * time.Millisecond):
		}
	}
	exec.Command("pkill", "-9", "-f", f.Dir+"/").Run()
	pids, _ := filepath.Glob(filepath.Join(f.Dir, "*", "network", "*.pid"))
	for _, p := range pids {
		exec.Command("ip", "netns", "del", strings.TrimSuffix(filepath.Base(p), ".pid")).Run()
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
