package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/audit"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/fault"
)

// auditing is which records audit shows, and from where.
type auditing struct {
	since, until  string
	who, what, on string
	last          int
	format        string
	follow        bool
	verify        bool
	files         string // read in place of the plane's answers
	seals         string
}

func newAudit(c *cli) *cobra.Command {
	var a auditing
	cmd := &cobra.Command{
		Use: "audit", Short: "Show who did what, and check that nobody changed it", Args: cobra.NoArgs,
		Long: `Show who did what: who signed in, connected, changed or deleted what, from where,
and how it went. Administrators and auditors may. Records are chained by hashes;
--verify goes through all of them and names the first that is not as it was.`,
		Example: `  consort audit --since 24h --who ana
  consort audit --what 'grant.*' -o jsonl
  consort audit --on desktop/default/office --follow
  consort audit --verify
  consort audit --verify --files /backup/audit --seals seals.json   # without the plane`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.verify {
				return c.verifyAudit(cmd.Context(), a)
			}
			return c.showAudit(cmd.Context(), a)
		},
	}
	a.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&a.format, "output", "o", "table", "table, json or jsonl")
	f.IntVarP(&a.last, "last", "n", 100, "only so many, the newest; 0 for all")
	f.BoolVarP(&a.follow, "follow", "f", false, "go on with every record that comes")
	f.BoolVar(&a.verify, "verify", false, "check every record in place of showing any")
	f.StringVar(&a.seals, "seals", "", "with --verify --files: what 'consort audit seals' wrote, kept elsewhere")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "jsonl"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(newAuditExport(c), newAuditSeals(c))
	return cmd
}

// flags adds what both showing and exporting know.
func (a *auditing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.since, "since", "", "from then: a span as 24h, a day as 2026-11-23, or a time")
	f.StringVar(&a.until, "until", "", "until before then, written in the same ways")
	f.StringVar(&a.who, "who", "", "a person, agent:NAME, or administrator; with * at the end whatever begins so")
	f.StringVar(&a.what, "what", "", "the act, as sign-in or 'grant.*'")
	f.StringVar(&a.on, "on", "", "the object, as desktop/default/office or 'grant/*'")
	f.StringVar(&a.files, "files", "", "read the log's files in this directory, without the plane")
}

func newAuditExport(c *cli) *cobra.Command {
	a := auditing{format: "jsonl"}
	cmd := &cobra.Command{
		Use: "export", Short: "Write all records as JSON lines", Args: cobra.NoArgs,
		Example: "  consort audit export --since 2026-11-01 > november.jsonl",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.showAudit(cmd.Context(), a) },
	}
	a.flags(cmd)
	return cmd
}

func newAuditSeals(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "seals", Short: "Write how far the log had come, to keep on another machine", Args: cobra.NoArgs,
		Long: `Write how far every file of the log had come, with hashes. Kept where nobody who
rules the plane can write, it shows later whether the log was written anew.`,
		Example: "  consort audit seals > seals.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.plane()
			if err != nil {
				return err
			}
			return client.AuditSeals(cmd.Context(), c.out)
		},
	}
}

// query reads the flags.
func (a *auditing) query(now time.Time) (audit.Query, error) {
	q := audit.Query{Who: a.who, What: a.what, On: a.on, Last: a.last}
	var err error
	if q.Since, err = moment(a.since, now); err == nil {
		q.Until, err = moment(a.until, now)
	}
	if a.last < 0 {
		err = usage{fmt.Errorf("-n %d is no number of records", a.last)}
	}
	return q, err
}

// moment reads a span before now, a day or a time. Nothing is the zero time.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.DateOnly, time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage{fmt.Errorf("%q is no time; write a span as 24h, a day as 2026-11-23, or a time as 2026-11-23T08:00:00Z", text)}
}

// showAudit prints the records.
func (c *cli) showAudit(ctx context.Context, a auditing) error {
	if !slices.Contains([]string{"table", "json", "jsonl"}, a.format) {
		return usage{fmt.Errorf("there is no form %q; use -o table, json or jsonl", a.format)}
	}
	if a.follow && (a.format == "json" || a.files != "") {
		return usage{errors.New("--follow goes on for ever: use -o table or jsonl, and no --files")}
	}
	q, err := a.query(time.Now())
	if err != nil {
		return err
	}
	var all []audit.Record
	show := func(r audit.Record) error {
		switch {
		case a.format == "jsonl":
			return json.NewEncoder(c.out).Encode(r)
		case a.follow:
			return writeRows(c.out, [][]string{auditRow(r)})
		}
		all = append(all, r)
		return nil
	}
	readErr := c.readAudit(ctx, a, q, show)
	if a.format == "json" {
		err = c.json(map[string]any{"items": append([]audit.Record{}, all...)})
	} else if len(all) > 0 {
		rows := [][]string{{"RECORD", "TIME", "WHO", "WHAT", "ON", "OUTCOME", "FROM", "WITH"}}
		for _, r := range all {
			rows = append(rows, auditRow(r))
		}
		err = writeRows(c.out, rows)
	}
	return errors.Join(readErr, err)
}

// readAudit gives the records to visit, from the files or from the plane.
func (c *cli) readAudit(ctx context.Context, a auditing, q audit.Query, visit func(audit.Record) error) error {
	if a.files != "" {
		if _, err := os.Stat(a.files); err != nil {
			return fault.NotFound.Errorf("read the audit log: %w", err)
		}
		return audit.Read(ctx, a.files, q, visit)
	}
	client, err := c.plane()
	if err != nil {
		return err
	}
	v := url.Values{}
	for name, text := range map[string]string{"who": q.Who, "what": q.What, "on": q.On} {
		v.Set(name, text)
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Last > 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	if a.follow {
		v.Set("watch", "true")
	}
	return client.Audit(ctx, v, func(line []byte) error {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return fault.Internal.Errorf("read the audit log: %w", err)
		}
		return visit(r)
	})
}

// auditRow is a record as a line of a table.
func auditRow(r audit.Record) []string {
	outcome := string(r.Outcome)
	if r.Why != "" {
		outcome += ": " + r.Why
	}
	var with []string
	if r.Of != 0 {
		with = append(with, "of="+strconv.FormatUint(r.Of, 10))
	}
	for _, k := range slices.Sorted(maps.Keys(r.With)) {
		with = append(with, k+"="+r.With[k])
	}
	return []string{strconv.FormatUint(r.Sequence, 10), r.Time.Local().Format(time.DateTime), r.Who, r.What, r.On, outcome, r.From, strings.Join(with, " ")}
}

// verifyAudit checks the log, here or at the plane, and says what was found.
func (c *cli) verifyAudit(ctx context.Context, a auditing) error {
	var r chain.Report
	var err error
	if a.files != "" {
		r, err = verifyFiles(ctx, a)
	} else {
		client, perr := c.plane()
		if perr != nil {
			return perr
		}
		err = client.VerifyAudit(ctx, &r)
	}
	if err != nil {
		return err
	}
	for _, t := range r.Torn {
		fmt.Fprintf(c.out, "%s:%d: record %d was begun and not ended, as a crash leaves it (%d bytes); it was never acknowledged\n", t.File, t.Line, t.Sequence, t.Bytes)
	}
	if r.Broken != nil {
		return fault.Stuck.Errorf("%w; the %s before it are as they were written, and nothing after it was checked", r.Broken, count(int(r.Frames), "record"))
	}
	fmt.Fprintf(c.out, "%s in %s are as they were written: %d to %d\n", count(int(r.Frames), "record"), count(r.Segments, "file"), r.First, r.Last)
	if r.Sealed < r.Last {
		fmt.Fprintf(c.out, "Seals cover them up to record %d; later ones could have been cut off or written anew.\n", r.Sealed)
	}
	return nil
}

func verifyFiles(ctx context.Context, a auditing) (chain.Report, error) {
	var kept struct {
		Items []chain.Seal `json:"items"`
	}
	if _, err := os.Stat(a.files); err != nil {
		return chain.Report{}, fault.NotFound.Errorf("verify the audit log: %w", err)
	}
	if a.seals != "" {
		text, err := os.ReadFile(a.seals)
		if err == nil {
			err = json.Unmarshal(text, &kept)
		}
		if err != nil {
			return chain.Report{}, fault.Invalid.Errorf("read the seals: %w", err)
		}
	}
	return chain.Verify(ctx, a.files, kept.Items)
}
