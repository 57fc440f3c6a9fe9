package main

import (
	"fmt"
	"strconv"
	"strings"

	"consort.dev/consort/estate"
)

func serviceCells(r *estate.Service) []string {
	s := &r.Status
	level := string(estate.NoData)
	for _, l := range s.Levels {
		if level != string(estate.Broken) && l.State != estate.NoData {
			level = string(l.State)
		}
	}
	return []string{
		strconv.Itoa(s.Ready), strconv.Itoa(s.Wanted), strconv.Itoa(r.Spec.Scale.Most), number(s.Serving()), level, s.Address, short(s.Waiting),
	}
}

func decisionCells(r *estate.Decision) []string {
	met := ""
	if o := r.Status.Outcome; o != nil {
		met = yes(o.Met)
	}
	return []string{clock(r.Spec.At), r.Spec.On.String(), r.Spec.Act, string(r.Status.State), met, clip(r.Spec.Say, 80)}
}

// service tells the replicas, the levels and the last rollout of a service.
func (c *cli) service(r *estate.Service) error {
	s := &r.Status
	fmt.Fprintf(c.out, "\nReplicas\n  %d ready of %d wanted: %s\n", s.Ready, s.Wanted, orElse(s.Because, "not looked at yet"))
	rows := [][]string{{"MACHINE", "REVISION", "STATE", "MADE", "ANSWERED AFTER"}}
	for _, x := range s.Replicas {
		after := ""
		if !x.Ready.IsZero() {
			after = seconds(x.Ready.Sub(x.Made))
		}
		rows = append(rows, []string{x.Machine, strconv.Itoa(x.Revision), string(x.State), clock(x.Made), after})
	}
	if len(rows) > 1 {
		if err := c.rows(rows); err != nil {
			return err
		}
	}
	rows = [][]string{{"LEVEL", "STATE", "GOOD", "OF", "LEFT", "BURN"}}
	for _, l := range s.Levels {
		rows = append(rows, []string{l.Name, string(l.State), strconv.FormatInt(l.Good, 10), strconv.FormatInt(l.Total, 10), strconv.FormatInt(l.Left, 10),
			strings.TrimSpace(fmt.Sprintf("%.1f %s", l.Burn, l.Alert))})
	}
	if len(rows) > 1 {
		fmt.Fprintln(c.out, "\nLevels")
		if err := c.rows(rows); err != nil {
			return err
		}
	}
	if o := s.Rollout; o != nil {
		fmt.Fprintf(c.out, "\nRollout\n  %s\n", rolloutText(o))
	}
	return nil
}

func rolloutText(o *estate.Rollout) string {
	text := fmt.Sprintf("from revision %d to %d: %s since %s", o.From, o.To, o.State, clock(o.Began))
	if !o.Ended.IsZero() {
		text = fmt.Sprintf("from revision %d to %d: %s at %s", o.From, o.To, o.State, clock(o.Ended))
	}
	if o.Verdict != "" {
		text += ": " + o.Verdict
	}
	return text
}

// decision tells why something was done, what else could have been, and what
// came of it.
func (c *cli) decision(r *estate.Decision) error {
	s := &r.Spec
	fmt.Fprintf(c.out, "\n%s\n  promised: %s\n", s.Say, s.Objective)
	var rows [][]string
	for _, f := range s.Evidence {
		rows = append(rows, []string{f.Name, strconv.FormatFloat(f.Value, 'g', 4, 64) + " " + f.Unit})
	}
	if err := c.rows(rows); err != nil {
		return err
	}
	if len(s.Alternatives) > 0 {
		fmt.Fprintln(c.out, "\nWhat else was considered")
		rows = [][]string{{"ACT", "TO", "WHY NOT"}}
		for _, a := range s.Alternatives {
			rows = append(rows, []string{a.Act, strconv.Itoa(a.To), a.Not})
		}
		if err := c.rows(rows); err != nil {
			return err
		}
	}
	if s.Expected.Say != "" {
		fmt.Fprintf(c.out, "\nExpected by %s\n  %s\n", clock(s.Expected.By), s.Expected.Say)
	}
	outcome := "not judged yet"
	if o := r.Status.Outcome; o != nil {
		outcome = map[bool]string{true: "it came true: ", false: "it did not come true: "}[o.Met] + o.Say
	}
	fmt.Fprintf(c.out, "\nOutcome\n  %s\n", outcome)
	if r.Status.Approved != "" {
		fmt.Fprintf(c.out, "  agreed to by %s\n", r.Status.Approved)
	}
	return nil
}
