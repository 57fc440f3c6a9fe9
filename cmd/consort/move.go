package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

func newMove(c *cli) *cobra.Command {
	var req api.MoveRequest
	noWait := false
	cmd := &cobra.Command{
		Use:   "move desktop|machine NAME",
		Short: "Move a desktop's machine, or a machine, to another hypervisor",
		Long: `Moves a machine with everything of it to another hypervisor, of whichever vendor.

It is shut down, its disks are carried and hashed on both sides, and it is started
there; --live moves it while it runs, where both sides can. It is gone from where
it was only after its guest was seen alive at the other end. Until then the move
is undone by itself when something fails, and 'consort operation abort' undoes it
at any moment.`,
		Example: `  consort move desktop ana-office --to rack-2 --dry-run
  consort move desktop ana-office --to rack-2
  consort move machine payroll --to rack-2 --live`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := c.refs(args)
			if err != nil {
				return err
			}
			if len(refs) != 1 || refs[0].Kind != "Desktop" && refs[0].Kind != "Machine" {
				return usage{errors.New("name one desktop or machine, as: consort move desktop ana-office --to rack-2")}
			}
			return c.move(cmd.Context(), refs[0], req, !noWait)
		},
	}
	c.projectFlag(cmd)
	moveFlags(cmd, &req, &noWait)
	cmd.Flags().StringVar(&req.To, "to", "", "the hypervisor (default: the one with most room of those that can take it)")
	cmd.Flags().StringVar(&req.GuestType, "guest-type", "", "the type of guest it is to be there, as pv or pvh (default: what it is, or else the usual one there)")
	cmd.Flags().BoolVar(&req.NoVerify, "no-verify", false, "do not try the guest at the other end; one that was off stays off")
	return cmd
}

// moveFlags are those that move and drain share.
func moveFlags(cmd *cobra.Command, req *api.MoveRequest, noWait *bool) {
	f := cmd.Flags()
	f.BoolVar(&req.Live, "live", false, "move it while it runs")
	f.BoolVar(&req.DryRun, "dry-run", false, "say what stands against it and what changes, do nothing")
	f.BoolVar(&req.Force, "force", false, "although it is not known whether its system can run there")
	f.StringVar(&req.Why, "why", "", "one sentence for the journal")
	f.BoolVar(noWait, "no-wait", false, "return as soon as it has begun")
}

func (c *cli) move(ctx context.Context, ref estate.Ref, req api.MoveRequest, wait bool) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	reply, err := client.Move(ctx, ref, req)
	if err != nil {
		return c.absent(ctx, client, ref, err)
	}
	for _, n := range reply.Notes {
		fmt.Fprintf(c.out, "%s\n", n)
	}
	if req.DryRun {
		return c.moveTold(reply)
	}
	fmt.Fprintf(c.out, "%s moves from %s to %s: operation %s\n", reply.Machine, reply.From, reply.To, reply.Operation)
	if !wait {
		return nil
	}
	return c.watchMoves(ctx, client, []estate.Ref{{Kind: "Operation", Project: reply.Machine.Project, Name: reply.Operation}})
}

// moveTold tells the outcome of a dry run.
func (c *cli) moveTold(r *api.MoveReply) error {
	if len(r.Obstacles) == 0 {
		fmt.Fprintf(c.out, "%s can move from %s to %s\n", r.Machine, r.From, r.To)
		return nil
	}
	for _, o := range r.Obstacles {
		fmt.Fprintf(c.out, "  %s\n", o)
	}
	return fault.Conflict.Errorf("%s cannot move to %s: %s above", r.Machine, orElse(r.To, "another hypervisor"), count(len(r.Obstacles), "reason"))
}

// watchMoves shows how far the operations are until all have ended. The moves
// go on when it is interrupted.
func (c *cli) watchMoves(ctx context.Context, client *api.Client, ops []estate.Ref) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := map[estate.Ref]bool{}
	for _, o := range ops {
		left[o] = true
	}
	show := progressLine{out: c.err, people: c.people, said: map[string]string{}}
	var failed []error
	for e := range api.Watch[estate.Operation](ctx, client, ops[0].Project) {
		if e.Type != api.Is || !left[e.Object.Ref()] {
			continue
		}
		op := e.Object
		show.tell(op, len(ops) > 1)
		if op.Status.Ended.IsZero() {
			continue
		}
		show.end()
		delete(left, op.Ref())
		if err := c.moveEnded(op); err != nil {
			failed = append(failed, err)
		}
		if len(left) == 0 {
			return errors.Join(failed...)
		}
	}
	return ctx.Err()
}

func (c *cli) moveEnded(op *estate.Operation) error {
	s, o := &op.Status, op.Spec.Move
	took := s.Ended.Sub(op.Metadata.Created).Round(100 * time.Millisecond)
	if s.State != estate.OperationDone {
		return fault.Unavailable.Errorf("%s is still on %s, as before: %s", op.Spec.On, o.From, s.Error)
	}
	var carried estate.Bytes
	for _, d := range s.Disks {
		carried += d.Carried
	}
	fmt.Fprintf(c.out, "%s moved from %s to %s in %s", op.Spec.On, o.From, o.To, took)
	if carried > 0 {
		fmt.Fprintf(c.out, "; %s carried, the hashes are equal", amount(carried))
	}
	if s.Note != "" {
		fmt.Fprintf(c.out, "; %s", s.Note)
	}
	fmt.Fprintln(c.out)
	return nil
}

// progressLine shows progress: on a terminal one line that changes, elsewhere a
// line for each step.
type progressLine struct {
	out    io.Writer
	people bool
	said   map[string]string // by operation
	width  int
}

func (p *progressLine) tell(op *estate.Operation, named bool) {
	text := moveText(op)
	key := text
	if !p.people {
		key = stepText(op) // bytes are for those who watch
	}
	if p.said[op.Metadata.Name] == key {
		return
	}
	p.said[op.Metadata.Name] = key
	if named {
		text = op.Spec.On.Name + ": " + text
	}
	if !p.people {
		fmt.Fprintln(p.out, text)
		return
	}
	fmt.Fprintf(p.out, "\r%-*s", p.width, text)
	p.width = len([]rune(text))
}

func (p *progressLine) end() {
	if p.people && p.width > 0 {
		fmt.Fprintf(p.out, "\r%-*s\r", p.width, "")
		p.width = 0
	}
}

// stepText names the step an operation is in.
func stepText(op *estate.Operation) string {
	if op.Status.State == estate.OperationUndoing {
		return "being undone: " + op.Status.Error
	}
	words := map[string]string{
		"stop": "shutting it down", "prepare": "making room at the other end", "copy": "carrying its disks", "place": "placing it",
		"depart": "going over", "shelve": "letting go of it", "boot": "starting it at the other end", "verify": "trying its guest",
		"restore": "shutting it down again", "return": "going back",
	}
	name := ""
	if n := len(op.Status.Steps); n > 0 {
		name = op.Status.Steps[n-1].Name
	}
	return orElse(words[name], "beginning")
}

// moveText is the step with how far it is: a bar for the disk that is carried.
func moveText(op *estate.Operation) string {
	text := stepText(op)
	for _, d := range op.Status.Disks {
		if d.Began.IsZero() || !d.Ended.IsZero() || d.Size == 0 {
			continue
		}
		const cells = 24
		full := int(min(d.Carried, d.Size) * cells / d.Size)
		text = fmt.Sprintf("disk %s [%s%s] %s of at most %s", d.Name, strings.Repeat("#", full), strings.Repeat(".", cells-full), orElse(amount(d.Carried), "0"), amount(d.Size))
	}
	if w := op.Status.Waiting; w != "" {
		text += " (" + short(w) + ")"
	}
	return text
}
