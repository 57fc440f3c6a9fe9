package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/manifest"
)

func newDescribe(c *cli) *cobra.Command {
	return c.ofOne(&cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Tell how an object is, why, and what happened to it",
		Example: `  consort describe desktop ana-office
  consort describe image/debian-12-desktop`,
	}, "consort describe desktop ana-office", c.describe)
}

// ofOne completes a command that tells of one object; as shows how to name it.
func (c *cli) ofOne(cmd *cobra.Command, as string, tell func(context.Context, estate.Ref) error) *cobra.Command {
	cmd.Args, cmd.ValidArgsFunction = cobra.RangeArgs(1, 2), c.completeKinds
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		refs, err := c.refs(args)
		if err != nil {
			return err
		}
		if len(refs) != 1 {
			return usage{errors.New("name one object, as: " + as)}
		}
		return tell(cmd.Context(), refs[0])
	}
	c.projectFlag(cmd)
	return cmd
}

func (c *cli) describe(ctx context.Context, ref estate.Ref) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	r, err := client.Load(ctx, ref)
	if err != nil {
		return c.absent(ctx, client, ref, err)
	}
	title := string(ref.Kind) + " " + ref.Name
	if ref.Project != "" {
		title += " in project " + ref.Project
	}
	fmt.Fprintf(c.out, "%s\n  %s\n", title, progress(r))
	if d := r.Header().Metadata.Deleting; !d.IsZero() {
		fmt.Fprintf(c.out, "  It is being deleted since %s; still to clean up: %s.\n", clock(d), strings.Join(r.Header().Metadata.Finalizers, ", "))
	}
	for _, cond := range r.Progress().Conditions {
		fmt.Fprintf(c.out, "  %s\n", conditionText(cond))
	}
	if err := c.particulars(r); err != nil {
		return err
	}
	if err := c.section("Wanted", reflect.ValueOf(r).Elem().FieldByName("Spec").Interface()); err != nil {
		return err
	}
	return c.events(ctx, client, ref)
}

func conditionText(c estate.Condition) string {
	is := map[string]string{estate.True: "yes", estate.False: "no"}[c.Status]
	text := c.Type + ": " + orElse(is, "not known")
	if !c.Since.IsZero() {
		text += " since " + clock(c.Since)
	}
	if c.Text != "" {
		text += ", " + c.Text
	}
	return text
}

// particulars tells what only some kinds have.
func (c *cli) particulars(r estate.Resource) error {
	switch r := r.(type) {
	case *estate.Desktop:
		return c.plans(&r.Status)
	case *estate.Session:
		c.queued(r.Status.Queue)
		c.phases(r.Status.Phases)
		fmt.Fprintf(c.out, "\nTrace          %s\n", strings.ReplaceAll(r.Metadata.UID, "-", ""))
	case *estate.Pool:
		return c.seats(&r.Status)
	case *estate.Service:
		return c.service(r)
	case *estate.Decision:
		return c.decision(r)
	case *estate.Hypervisor:
		if err := c.capabilities(&r.Status); err != nil {
			return err
		}
		for _, f := range r.Status.Fetching {
			fmt.Fprintf(c.out, "\nFetching %s from another host: %s of %s\n", f.What, amount(f.Got), amount(f.Of))
		}
		return c.found(&r.Status)
	case *estate.Operation:
		return c.operation(r)
	case *estate.Application:
		var rows [][]string
		for _, l := range r.Status.Layers {
			state := orElse(l.Text, amount(l.Size))
			if l.Work != nil {
				state = fmt.Sprintf("%s (%d of %d), %d%%", l.Work.Phase, l.Work.Step, l.Work.Steps, l.Work.Percent)
			}
			rows = append(rows, []string{"  " + l.Version, l.Image.Short(), l.Digest.Short(), state})
		}
		if len(rows) > 0 {
			fmt.Fprintln(c.out, "\nLayers")
			return c.rows(append([][]string{{"VERSION", "IMAGE", "DIGEST", "STATE"}}, rows...))
		}
	case *estate.Image:
		if r.Status.Digest != "" {
			return c.section("Guest", r.Status.Guest)
		}
	case *estate.Machine:
		var rows [][]string
		for _, l := range r.Status.Layers {
			rows = append(rows, []string{l.Application, l.Digest.Short(), map[bool]string{true: "attached", false: "not attached"}[l.Attached], l.Text})
		}
		if len(rows) > 0 {
			fmt.Fprintln(c.out, "\nLayers")
			return c.rows(rows)
		}
	}
	return nil
}

// plans tells the composition that runs, and how the next one differs.
func (c *cli) plans(s *estate.DesktopStatus) error {
	if s.Plan != nil {
		if err := c.section("Plan", s.Plan); err != nil {
			return err
		}
	}
	if s.Plan != nil && s.Next != nil {
		fmt.Fprintln(c.out, "\nChanges to come")
		for _, ch := range compose.Diff(*s.Plan, *s.Next) {
			fmt.Fprintf(c.out, "  %s\n", ch)
		}
	}
	return nil
}

// seats tells how many seats a pool has, and why.
func (c *cli) seats(s *estate.PoolStatus) error {
	fmt.Fprintf(c.out, "\nSeats\n  %d ready of %d wanted: %s\n  %d being made, %d taken, %d waited for\n", s.Warm, s.Wanted, orElse(s.Because, "not looked at yet"), s.Making, s.Taken, s.Queue)
	fmt.Fprintf(c.out, "  a seat takes %s to make, persons stay %s, %.1f come a minute\n",
		orElse(lasting(s.Make), "a time nobody has measured"), orElse(lasting(s.Stay), "a time nobody has measured"), s.Rate)
	return nil
}

// queued tells somebody's place in the queue for a seat.
func (c *cli) queued(q *estate.Queued) {
	if q == nil {
		return
	}
	fmt.Fprintf(c.out, "\nQueue\n  place %d of %d", q.Place, q.Of)
	if !q.Expected.IsZero() {
		fmt.Fprintf(c.out, ", a seat is expected at %s", clock(q.Expected))
	}
	if q.Assumed {
		fmt.Fprint(c.out, ", by what is usual elsewhere: nothing was measured here yet")
	}
	fmt.Fprintln(c.out)
}

func (c *cli) phases(all []estate.Phase) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(c.out, "\nPhases")
	for _, p := range all {
		took := "not begun"
		switch {
		case !p.Ended.IsZero():
			took = seconds(p.Ended.Sub(p.Began))
		case !p.Began.IsZero():
			took = "since " + clock(p.Began)
		}
		fmt.Fprintf(c.out, "  %-14s %s\n", p.Name, strings.TrimSpace(took+"  "+p.Text))
	}
}

func (c *cli) rows(rows [][]string) error {
	w := &indented{to: c.out, start: true}
	return writeRows(w, rows)
}

// section writes a part of an object as YAML under a title.
func (c *cli) section(title string, v any) error {
	text, err := manifest.MarshalValue(v)
	if err != nil || string(text) == "{}\n" {
		return err
	}
	fmt.Fprintf(c.out, "\n%s\n", title)
	_, err = (&indented{to: c.out, start: true}).Write(text)
	return err
}

func (c *cli) events(ctx context.Context, client *api.Client, ref estate.Ref) error {
	all, _, err := api.List[estate.Event](ctx, client, api.Filter{Project: ref.Project})
	if err != nil {
		return nil // who may see an object need not see events
	}
	all = slices.DeleteFunc(all, func(e *estate.Event) bool { return e.Spec.On != ref })
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *estate.Event) int { return a.Spec.At.Compare(b.Spec.At) })
	fmt.Fprintln(c.out, "\nWhat happened")
	for _, e := range all[max(0, len(all)-20):] {
		mark := " "
		if e.Spec.Bad {
			mark = "!"
		}
		fmt.Fprintf(c.out, "%s %s  %s (%s)\n", mark, clock(e.Spec.At), e.Spec.Text, e.Spec.By)
	}
	return nil
}

// progress is how an object is, in one sentence.
func progress(r estate.Resource) string {
	p := r.Progress()
	if p.Waiting != "" {
		return orElse(state(r), "waiting") + ": " + p.Waiting
	}
	if s := state(r); s != "" {
		return s
	}
	switch ready := p.Get(estate.Ready); {
	case ready.Status == estate.True:
		return "ready"
	case ready.Status == estate.False:
		return "not ready: " + orElse(ready.Text, orElse(ready.Reason, "nobody says why"))
	}
	return "there"
}

// state is the word for how far an object has come, for kinds that have one.
func state(r estate.Resource) string {
	switch r := r.(type) {
	case *estate.Desktop:
		return string(r.Status.State)
	case *estate.Session:
		return strings.TrimSuffix(string(r.Status.State)+", "+r.Status.Because, ", ")
	case *estate.Hypervisor:
		return orElse(string(r.Status.State), "not joined")
	case *estate.Pool:
		return fmt.Sprintf("%d ready, %d taken", r.Status.Warm, r.Status.Taken)
	case *estate.Service:
		return fmt.Sprintf("%d of %d replicas answer", r.Status.Ready, r.Status.Wanted)
	case *estate.Decision:
		return string(r.Status.State)
	case *estate.Machine:
		if r.Status.Power != "" {
			return "power " + string(r.Status.Power)
		}
	case *estate.Image:
		return imageState(r)
	case *estate.Application:
		return applicationState(r)
	case *estate.Event:
		return r.Spec.On.String() + ": " + r.Spec.Text
	}
	return ""
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// indented puts two blanks before every line.
type indented struct {
	to interface {
		Write([]byte) (int, error)
	}
	start bool
}

func (i *indented) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if i.start {
			line = "  " + line
		}
		i.start = strings.HasSuffix(line, "\n")
		if _, err := i.to.Write([]byte(line)); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
