package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
)

const project, desktop = "default", "bench"

// estateFile is one desktop of the guest.
const estateFile = `
apiVersion: consort.dev/v1
kind: Image
metadata: {name: bench, project: default}
spec: {import: {path: %s, format: raw, guest: {}}}
---
apiVersion: consort.dev/v1
kind: Context
metadata: {name: bench, project: default}
spec: {colour: "#2e6f8e", trust: 1}
---
apiVersion: consort.dev/v1
kind: Person
metadata: {name: bench}
spec: {title: Bench}
---
apiVersion: consort.dev/v1
kind: Blueprint
metadata: {name: bench, project: default}
spec: {image: bench, presentation: vnc, context: bench, size: {cpus: 1, memory: 32Mi}}
---
apiVersion: consort.dev/v1
kind: Desktop
metadata: {name: bench, project: default}
spec: {blueprint: bench, person: bench}
`

// product is a consort that runs, and a desktop that is on: on its own host, or
// on another, whose agent has joined.
type product struct {
	binary  string
	dir     string
	cmd     *exec.Cmd
	client  *api.Client
	portal  string // host:port
	session *estate.Session

	agent *exec.Cmd // of the other host; nil where there is none
	far   *distance // between that agent and the plane
}

// startProduct starts consort with everything in one process.
func startProduct(ctx context.Context, binary, dir, disk string) (*product, error) {
	p := &product{binary: binary, dir: dir}
	return p, p.start(ctx, disk, nil)
}

// startRemote starts a consort that runs no machines, and the agent of another
// host. Both are on this machine; between them is as much distance as is wanted.
func startRemote(ctx context.Context, binary, dir, disk string) (*product, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	door := l.Addr().String()
	l.Close() // consort takes an address, not a socket
	p := &product{binary: binary, dir: dir}
	return p, p.start(ctx, disk, func() error { return p.join(ctx, door) }, "--no-agent", "--agents", door)
}

// start leaves nothing behind when it fails.
func (p *product) start(ctx context.Context, disk string, then func() error, args ...string) (err error) {
	if err := os.MkdirAll(p.dir, 0o711); err != nil { // machines have users of their own
		return err
	}
	if p.client, err = api.NewClient(api.Options{Server: p.socket()}); err != nil {
		return err
	}
	p.cmd = exec.CommandContext(ctx, p.binary, append([]string{"up", "--state", p.dir, "--listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.stop(context.WithoutCancel(ctx))
		}
	}()
	if p.portal, err = portalIn(out); err != nil {
		return err
	}
	go io.Copy(io.Discard, out)
	if then != nil {
		if err := then(); err != nil {
			return err
		}
	}
	file := filepath.Join(p.dir, "estate.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, estateFile, disk), 0o644); err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, p.binary, "apply", "--server", p.socket(), "-f", file, "--wait", "--timeout", "2m")
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	p.session, err = p.connect(ctx)
	return err
}

func (p *product) socket() string { return filepath.Join(p.dir, "run", "api.sock") }

// join starts the agent of the other host.
func (p *product) join(ctx context.Context, door string) error {
	reply, err := p.client.JoinToken(ctx, "there", time.Hour)
	if err != nil {
		return err
	}
	if p.far, err = farFrom(door, 0); err != nil {
		return err
	}
	state := filepath.Join(p.dir, "there")
	if err := os.MkdirAll(state, 0o711); err != nil {
		return err
	}
	token := filepath.Join(state, "token")
	if err := os.WriteFile(token, []byte(reply.Token), 0o600); err != nil {
		return err
	}
	p.agent = exec.CommandContext(ctx, p.binary, "agent", "--join", "https://"+p.far.address(), "--token-file", token, "--state", state)
	p.agent.Stderr = os.Stderr
	return p.agent.Start()
}

// portalIn reads until the sign-in link and returns where it leads.
func portalIn(out io.Reader) (string, error) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if link := strings.TrimSpace(lines.Text()); strings.Contains(link, "#code=") {
			u, err := url.Parse(link)
			if err != nil {
				return "", err
			}
			return u.Host, nil
		}
	}
	return "", errors.New("consort ended before it was up")
}

// connect presses Connect and waits until the session is ready.
func (p *product) connect(ctx context.Context) (*estate.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := p.client.Connect(ctx, project, desktop, "")
	if err != nil {
		return nil, err
	}
	for e := range api.Watch[estate.Session](ctx, p.client, project) {
		switch {
		case e.Type == api.Ended:
			return nil, e.Err
		case e.Type == api.Is && e.Object.Metadata.Name == s.Metadata.Name && e.Object.Status.State == estate.SessionReady:
			return e.Object, nil
		case e.Type == api.Is && e.Object.Metadata.Name == s.Metadata.Name && e.Object.Status.State == estate.SessionEnded:
			return nil, fmt.Errorf("the session ended: %s", e.Object.Status.Because)
		}
	}
	return nil, ctx.Err()
}

// dial opens the desktop through the gateway at the address, as a browser does.
func (p *product) dial(ctx context.Context, address string) (net.Conn, error) {
	t, err := p.client.Ticket(ctx, project, p.session.Metadata.Name, false)
	if err != nil {
		return nil, err
	}
	there, err := api.NewClient(api.Options{Server: "http://" + address})
	if err != nil {
		return nil, err
	}
	return there.Tunnel(ctx, t.Ticket)
}

func (p *product) pids() ([]int, error) {
	pids := []int{p.cmd.Process.Pid}
	if p.agent != nil {
		pids = append(pids, p.agent.Process.Pid)
	}
	return pids, nil
}

// stop deletes the desktop, so that its machine goes, and ends consort.
func (p *product) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := p.client.Delete(ctx, estate.Ref{Kind: "Desktop", Project: project, Name: desktop}, api.Write{})
	for err == nil {
		var left []*estate.Machine
		left, _, err = api.List[estate.Machine](ctx, p.client, api.Filter{})
		if len(left) == 0 {
			break
		}
		err = errors.Join(err, pause(ctx, 100*time.Millisecond))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "remove the desktop:", err)
	}
	for _, c := range []*exec.Cmd{p.agent, p.cmd} {
		if c != nil && c.Process != nil {
			_ = c.Process.Signal(os.Interrupt) // it may have ended
			_ = c.Wait()                       // however it ended
		}
	}
	if p.far != nil {
		p.far.close()
	}
}
