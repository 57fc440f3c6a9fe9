package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/bench/result"
	"consort.dev/consort/estate"
)

// portal is the portal in Chromium, with somebody signed in.
type portal struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// openPortal signs in by the link, which opens it once, and stays at home.
func openPortal(ctx context.Context, link string) (*portal, error) {
	p := &portal{cmd: exec.CommandContext(ctx, "node", "test/seats.mjs")}
	p.cmd.Dir, p.cmd.Stderr = "web", os.Stderr
	p.cmd.Env = append(os.Environ(), "LINK="+link)
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewScanner(out)
	return p, p.cmd.Start()
}

// connect presses Connect on a pool's card and returns the milliseconds until the
// desktop is seen.
func (p *portal) connect(pool string) (float64, error) {
	if _, err := fmt.Fprintln(p.in, pool); err != nil {
		return 0, err
	}
	if !p.out.Scan() {
		return 0, errors.Join(errors.New("the portal ended"), p.out.Err())
	}
	return strconv.ParseFloat(strings.TrimSpace(p.out.Text()), 64)
}

func (p *portal) close() error {
	p.in.Close()
	return p.cmd.Wait()
}

// inChromium has one person connect in a browser, to a pool that keeps a seat
// ready and to one that does not, each time as if for the first.
func (p *plane) inChromium(ctx context.Context, o options, s result.Samples) error {
	page, err := openPortal(ctx, p.link)
	if err != nil {
		return err
	}
	err = p.throughPortal(ctx, page, "warm", 1, o.visits/2, s)
	if err == nil {
		err = p.throughPortal(ctx, page, "cold", 0, o.visits/2, s)
	}
	return errors.Join(err, page.close())
}

// throughPortal connects to a pool that keeps so many seats ready. The first
// visit loads the pages and does not count.
func (p *plane) throughPortal(ctx context.Context, page *portal, pool string, ready, visits int, s result.Samples) error {
	for i := range visits + 1 {
		if err := p.warm(ctx, pool, ready); err != nil {
			return err
		}
		pause(ctx, time.Second) // until the seat that was left is gone
		took, err := page.connect(pool)
		if err != nil {
			return fmt.Errorf("connect to pool %s in Chromium: %w", pool, err)
		}
		if i > 0 {
			s.Add("portal_"+pool, took)
		}
		fmt.Fprintf(os.Stderr, "Chromium, pool %s: first frame after %.0f ms\n", pool, took)
		if err := p.clear(ctx, pool); err != nil {
			return err
		}
	}
	return p.warm(ctx, pool, 0)
}

// clear ends all sessions of the pool.
func (p *plane) clear(ctx context.Context, pool string) error {
	all, _, err := api.List[estate.Session](ctx, p.client, api.Filter{Project: project})
	for _, s := range all {
		if s.Spec.Pool == pool && s.Status.State != estate.SessionEnded {
			err = errors.Join(err, p.end(ctx, s))
		}
	}
	return err
}
