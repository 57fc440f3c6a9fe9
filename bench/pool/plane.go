package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
)

const project = "default"

// plane is a consort that runs, with the host it is on.
type plane struct {
	client *api.Client
	cmd    *exec.Cmd
	link   string // signs a person in to the portal, once
}

// start starts consort with its state in dir, and waits until what the
// manifests need is made.
func start(ctx context.Context, o options, dir string) (*plane, error) {
	client, err := api.NewClient(api.Options{Server: filepath.Join(dir, "run", "api.sock")})
	if err != nil {
		return nil, err
	}
	p := &plane{client: client, cmd: exec.CommandContext(ctx, o.binary, "up", "--state", dir, "--images", filepath.Join(o.cache, "images"),
		"--listen", "127.0.0.1:0", "--apply", "examples/first-desktop/image.yaml", "--apply", "bench/pool/estate.yaml")}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "#code=") {
			p.link = strings.TrimSpace(lines.Text())
			go io.Copy(io.Discard, out)
			return p, nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return nil, errors.Join(errors.New("consort ended before it was up"), p.cmd.Wait())
}

// persons makes so many persons.
func (p *plane) persons(ctx context.Context, n int) error {
	var all []estate.Resource
	for i := range n {
		all = append(all, &estate.Person{Head: estate.Head{APIVersion: estate.APIVersion, Kind: "Person", Metadata: estate.Metadata{Name: person(i)}}})
		if len(all) == 100 || i == n-1 {
			if _, err := p.client.Apply(ctx, all, false); err != nil {
				return err
			}
			all = nil
		}
	}
	return nil
}

func person(i int) string { return fmt.Sprint("person-", i) }

// warm has the pool keep so many seats ready and waits until they are.
func (p *plane) warm(ctx context.Context, pool string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	_, err := api.Modify(ctx, p.client, project, pool, func(p *estate.Pool) error { p.Spec.Warm = n; return nil })
	if err != nil {
		return err
	}
	told := ""
	for e := range api.Watch[estate.Pool](ctx, p.client, project) {
		if e.Type != api.Is || e.Object.Metadata.Name != pool {
			continue
		}
		s := e.Object.Status
		if s.Wanted == n && s.Warm >= n && s.Making == 0 {
			return nil
		}
		if s.Waiting != told {
			told = s.Waiting
			fmt.Fprintln(os.Stderr, "pool", pool+":", told)
		}
	}
	return fmt.Errorf("%d seats of pool %s were not ready after 20 minutes: %s", n, pool, told)
}

// close removes the pools with all their seats and stops consort.
func (p *plane) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var failed []error
	for _, pool := range []string{"warm", "cold", "fresh"} {
		failed = append(failed, p.client.Delete(ctx, estate.Ref{Kind: "Pool", Project: project, Name: pool}, api.Write{}))
	}
	for {
		all, _, err := api.List[estate.Machine](ctx, p.client, api.Filter{})
		if err != nil || len(all) == 0 {
			failed = append(failed, err)
			break
		}
		pause(ctx, 100*time.Millisecond)
	}
	p.client.Close()
	failed = append(failed, p.cmd.Process.Signal(os.Interrupt), p.cmd.Wait())
	return errors.Join(failed...)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
