package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// connection is what connect was asked for.
type connection struct {
	to           estate.Ref // a desktop or a pool
	another      bool
	presentation string
	forward      string // port; "" is no forward, "0" any free one
	open         bool
	file         string
	timeout      time.Duration
}

func newConnect(c *cli) *cobra.Command {
	var k connection
	cmd := &cobra.Command{
		Use:   "connect DESKTOP | pool/NAME",
		Short: "Work on a desktop with a viewer of this machine",
		Long: `Brings the desktop up, telling what is done, and opens it: in a viewer where
this machine has a screen and a viewer, else by telling where the portal shows
it. With --forward any viewer can be used: it connects to a port on this
machine's loopback and shows the password that is printed. A password opens one
connection; when it expires unused the next one is printed.

A pool gives you a seat: the one you have, or the next that is free. While there
is none you are told your place in the queue and when to expect it. The seat is
destroyed when your session ends, with everything saved on it.`,
		Example: `  consort connect ana-office
  consort connect ana-office --forward
  consort connect ana-office --forward=5901
  consort connect ana-office --presentation rdp -o office.rdp
  consort connect pool/counter`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeDesktops,
		RunE: func(cmd *cobra.Command, args []string) error {
			desktops, _ := estate.KindNamed("Desktop")
			k.to = c.ref(desktops, args[0])
			if strings.Contains(args[0], "/") {
				refs, err := c.refs(args)
				if err != nil {
					return err
				}
				k.to = refs[0]
			}
			if k.to.Kind != "Desktop" && k.to.Kind != "Pool" {
				return usage{fmt.Errorf("%q is nothing to connect to; name a desktop, or write pool/NAME", args[0])}
			}
			return c.connect(cmd.Context(), k)
		},
	}
	c.projectFlag(cmd)
	f := cmd.Flags()
	f.BoolVar(&k.another, "another", false, "of a pool: one more seat besides those you have")
	f.StringVar(&k.presentation, "presentation", "", "another presentation than the blueprint's own")
	f.StringVar(&k.forward, "forward", "", "listen for viewers on this port of 127.0.0.1")
	f.Lookup("forward").NoOptDefVal = "0"
	f.BoolVar(&k.open, "open", false, "insist on opening a viewer here")
	f.StringVarP(&k.file, "file", "o", "", "write the viewer's file here and wait for it to be opened")
	f.DurationVar(&k.timeout, "timeout", 15*time.Minute, "how long the desktop may take to come up")
	return cmd
}

func newStart(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "start DESKTOP APPLICATION",
		Short:             "Start an application on a running desktop",
		Example:           "  consort start ana-office writer",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeDesktops,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.plane()
			if err != nil {
				return err
			}
			if err := client.StartApplication(cmd.Context(), c.project, args[0], args[1]); err != nil {
				return err
			}
			fmt.Fprintf(c.out, "%s runs on %s\n", args[1], args[0])
			return nil
		},
	}
	c.projectFlag(cmd)
	return cmd
}

func (c *cli) connect(ctx context.Context, k connection) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	var s *estate.Session
	if k.to.Kind == "Pool" {
		s, err = client.ConnectPool(ctx, k.to.Project, k.to.Name, api.ConnectRequest{Presentation: k.presentation, Another: k.another})
	} else {
		s, err = client.Connect(ctx, k.to.Project, k.to.Name, k.presentation)
	}
	if err != nil {
		return c.absent(ctx, client, k.to, err)
	}
	if s, err = c.await(ctx, client, s, k.timeout); err != nil {
		return err
	}
	offer, err := offerOf(ctx, client, s.Status.Way.Name)
	if err != nil {
		return err
	}
	f := &forwarder{cli: c, client: client, session: s, offer: offer}
	viewer := c.viewerFor(offer.File)
	switch {
	case k.forward != "":
		return f.serve(ctx, k.forward)
	case k.file != "":
		return f.file(ctx, k.file)
	case viewer != "":
		return f.view(ctx, viewer)
	case k.open:
		return fault.Unsupported.Errorf("no viewer for %s can be opened here: a screen and one of %s are needed; use --forward for others",
			offer.Name, strings.Join(viewersOf(offer.File), ", "))
	}
	c.where(s, offer)
	return nil
}

// where tells a person without a viewer how to get to the desktop.
func (c *cli) where(s *estate.Session, offer estate.PresentationOffer) {
	again := "consort connect " + s.Spec.Desktop
	if s.Spec.Presentation != "" {
		again += " --presentation " + s.Spec.Presentation
	}
	if offer.Browser {
		page := &url.URL{Path: "/desktops/" + s.Metadata.Project + "/" + s.Spec.Desktop}
		if u, err := url.Parse(c.server); err == nil && u.Host != "" && !filepath.IsAbs(c.server) {
			fmt.Fprintf(c.out, "The desktop is ready. Open %s\n", u.ResolveReference(page))
		} else {
			fmt.Fprintf(c.out, "The desktop is ready. Open the portal, at the address that 'consort up' printed, followed by %s\n", page)
		}
	} else {
		fmt.Fprintln(c.out, "The desktop is ready.")
	}
	fmt.Fprintf(c.out, "For a viewer of your own: %s --forward\n", again)
}

// await follows the session until a ticket can be asked for, telling the
// phases as they go.
func (c *cli) await(ctx context.Context, client *api.Client, asked *estate.Session, timeout time.Duration) (*estate.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ref := asked.Ref()
	told := map[string]bool{}
	waiting := ""
	for e := range api.Watch[estate.Session](ctx, client, ref.Project) {
		if e.Type == api.Ended {
			return nil, e.Err
		}
		if e.Type == api.Lost {
			fmt.Fprintf(c.err, "%s; trying again\n", e.Err)
		}
		if e.Object == nil || e.Object.Metadata.Name != ref.Name {
			continue
		}
		s := e.Object
		if e.Type == api.Gone {
			return nil, fault.NotFound.Errorf("the session was deleted while the desktop came up; connect again")
		}
		for _, p := range s.Status.Phases {
			c.phase(p, told)
		}
		switch s.Status.State {
		case estate.SessionReady, estate.SessionOpen:
			return s, nil
		case estate.SessionEnded:
			return nil, fault.Conflict.Errorf("the session ended: %s", orElse(s.Status.Because, "nobody says why"))
		}
		if s.Status.Waiting != waiting && s.Status.Waiting != "" {
			waiting = s.Status.Waiting
			fmt.Fprintf(c.err, "  %s\n", waiting)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fault.Unavailable.Errorf("the desktop was not up after %s; %s\n'consort describe session %s' says more", timeout, orElse(waiting, "nothing says why"), ref.Name)
	}
	return nil, ctx.Err()
}

// phase tells the end of a phase once.
func (c *cli) phase(p estate.Phase, told map[string]bool) {
	if p.Ended.IsZero() || told[p.Name] {
		return
	}
	told[p.Name] = true
	fmt.Fprintf(c.err, "%7s  %s\n", seconds(p.Ended.Sub(p.Began)), orElse(p.Text, p.Name))
}

func offerOf(ctx context.Context, client *api.Client, name string) (estate.PresentationOffer, error) {
	all, err := client.Offers(ctx)
	if err != nil {
		return estate.PresentationOffer{}, err
	}
	for _, o := range all.Presentations {
		if o.Name == name {
			return o, nil
		}
	}
	return estate.PresentationOffer{}, fault.NotFound.Errorf("the plane offers no presentation %q any more", name)
}
