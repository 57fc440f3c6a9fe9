package lifecycle

import (
	"context"
	"fmt"
	"strings"
	"time"

	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/plane/control"
)

// became tells that the desktop is in another state than it was.
func (k *Keeper) became(ctx context.Context, d *estate.Desktop, was estate.DesktopState) {
	s := &d.Status
	if s.State == was || was == "" && s.State == estate.DesktopOff {
		return
	}
	h := control.Happening{On: d.Ref(), Reason: reasonOf(s.State)}
	switch s.State {
	case estate.DesktopBlocked:
		h.Bad, h.Text = true, "it cannot be composed: "+s.Waiting
	case estate.DesktopPreparing:
		h.Text = "what it is made of is being prepared: " + s.Waiting
	case estate.DesktopStarting:
		h.Text = "it starts"
	case estate.DesktopRunning:
		h.Text = "its desktop is drawn, it can be worked on"
	case estate.DesktopMoving:
		h.Text = s.Waiting
	case estate.DesktopStopping:
		h.Text = "it stops"
	default:
		h.Text = "it is off"
	}
	k.Events.Tell(ctx, h)
}

func reasonOf(s estate.DesktopState) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(string(s[:1])) + string(s[1:])
}

// announced tells what becomes different at the desktop's next start, when that
// is not what was announced before.
func (k *Keeper) announced(ctx context.Context, d *estate.Desktop, before *estate.Plan) {
	text := announcement(planOf(d), d.Status.Next)
	if text == "" || text == announcement(planOf(d), before) {
		return
	}
	k.Events.Tell(ctx, control.Happening{On: d.Ref(), Of: "next", Reason: "ChangeAnnounced", Text: text})
}

func announcement(now, next *estate.Plan) string {
	if next == nil {
		return ""
	}
	var all []string
	for _, c := range compose.Diff(*now, *next) {
		if c.Needs != compose.Nothing {
			all = append(all, c.String())
		}
	}
	return strings.Join(all, ". ")
}

// made tells that the desktop has a machine.
func (k *Keeper) made(ctx context.Context, v *view) {
	var apps []string
	for _, l := range v.machine.Spec.Layers {
		apps = append(apps, l.Application+" "+l.Version)
	}
	text := fmt.Sprintf("machine %s is made, from image %s", v.machine.Metadata.Name, v.plan.Image.Short())
	if len(apps) > 0 {
		text += " with " + strings.Join(apps, ", ")
	}
	k.Events.Tell(ctx, control.Happening{On: v.desktop.Ref(), Of: "machine", Reason: "MachineMade", Text: text})
}

// Why a desktop's machine is removed.
const (
	forReset  = "Reset"
	forChange = "MachineReplaced"
	forGood   = "MachineRemoved"

	forSession = "ThrownAway"
)

func (k *Keeper) removed(ctx context.Context, v *view, why string) {
	text := "machine " + v.machine.Metadata.Name + " goes: "
	switch why {
	case forReset:
		text += "a reset was asked for. The next one begins with a fresh system disk, the home stays"
	case forSession:
		text += "its session is over, and the key of what was written in it is destroyed. The next one begins fresh"
	case forChange:
		text += "its composition has changed. " + announcement(planOf(v.desktop), &v.plan)
	default:
		text += "the desktop was deleted, the home stays"
	}
	k.Events.Tell(ctx, control.Happening{On: v.desktop.Ref(), Of: "machine", Reason: why, Text: text})
}

// stillNews is how long after a session's end it is told: a session may end
// without the loop, which then finds it ended.
const stillNews = time.Minute

func (k *Keeper) ended(ctx context.Context, s *estate.Session) {
	if k.Now().Sub(s.Status.Ended) > stillNews {
		return
	}
	because := strings.TrimRight(s.Status.Because, ".")
	if because == "" {
		because = "nobody said why"
	}
	k.Events.Tell(ctx, control.Happening{
		On: estate.Ref{Kind: "Desktop", Project: s.Metadata.Project, Name: s.Spec.Desktop}, Of: s.Metadata.UID, Reason: "SessionEnded",
		Text: fmt.Sprintf("session %s of %s ended: %s", s.Metadata.Name, s.Spec.Person, because),
	})
}
