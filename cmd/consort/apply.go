package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
)

func newApply(c *cli) *cobra.Command {
	var files []string
	var dryRun, wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "apply -f FILE|FOLDER|-",
		Short: "Make the estate as manifests say: all of it, or nothing",
		Long: `Reads every manifest, checks the whole set and applies it in one step. When
anything is wrong every mistake is told with file, line and column, and nothing
is changed. What is not in the set stays as it is.`,
		Example: `  consort apply -f examples/first-desktop
  consort apply -f desktop.yaml --dry-run
  consort get desktop ana-office -o yaml | consort apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, result, err := c.apply(cmd.Context(), files, dryRun)
			if err != nil {
				return err
			}
			c.changes(result, dryRun)
			if dryRun {
				c.costs(cmd.Context(), set, result)
			}
			if wait && !dryRun {
				return c.settle(cmd.Context(), set, timeout)
			}
			return nil
		},
	}
	c.projectFlag(cmd)
	c.fileFlag(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check and compare only")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until images and layers are made, telling how far they are")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Minute, "how long --wait waits")
	return cmd
}

func newDiff(c *cli) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|FOLDER|-",
		Short: "Say what apply would change",
		Example: `  consort diff -f examples/first-desktop
  consort diff -f desktop.yaml && echo nothing to do`,
		Long: `Says what apply would change, field by field, and what that takes on the
desktops there are: whether sessions open again, layers are exchanged while the
desktop runs, or it changes at its next start. Nothing is changed. The exit
status is 0 when nothing would change and 1 otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, result, err := c.apply(cmd.Context(), files, true)
			if err != nil {
				return err
			}
			c.changes(result, true)
			c.costs(cmd.Context(), set, result)
			if n := changed(result); n > 0 {
				return fmt.Errorf("%s would change", count(n, "object"))
			}
			return nil
		},
	}
	c.projectFlag(cmd)
	c.fileFlag(cmd, &files)
	return cmd
}

func (c *cli) fileFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "manifest, folder of manifests, or - for the input; may be given several times")
	_ = cmd.MarkFlagRequired("filename")
}

// load reads manifests; they may refer to what the plane has.
func (c *cli) load(ctx context.Context, files []string) (manifest.Set, error) {
	client, err := c.plane()
	if err != nil {
		return manifest.Set{}, err
	}
	l := manifest.Loader{Stdin: c.in, Project: c.project, Known: func(kind estate.Kind, project string) ([]string, error) {
		rs, _, err := client.ListKind(ctx, kind, api.Filter{Project: project})
		if err != nil {
			return nil, err
		}
		names := make([]string, len(rs))
		for i, r := range rs {
			names[i] = r.Header().Metadata.Name
		}
		return names, nil
	}}
	return l.Load(files...)
}

func (c *cli) apply(ctx context.Context, files []string, dryRun bool) (manifest.Set, *api.ApplyResult, error) {
	set, err := c.load(ctx, files)
	if err != nil {
		return set, nil, err
	}
	client, err := c.plane()
	if err != nil {
		return set, nil, err
	}
	result, err := client.Apply(ctx, set.Resources(), dryRun)
	return set, result, inFiles(set, err)
}

var objectPath = regexp.MustCompile(`^objects\[(\d+)\]\.?(.*)$`)

// inFiles turns the server's complaints about objects of a set into errors at
// their places in the files.
func inFiles(set manifest.Set, err error) error {
	var p *api.Problem
	if !errors.As(err, &p) || len(p.Problems) == 0 {
		return err
	}
	var es manifest.Errors
	for _, q := range p.Problems {
		m := objectPath.FindStringSubmatch(q.Path)
		if m == nil {
			return err
		}
		i, e := strconv.Atoi(m[1])
		if e != nil || i >= len(set.Objects) {
			return err
		}
		es = append(es, set.Objects[i].Error(m[2], q.Text))
	}
	return es
}

func changed(r *api.ApplyResult) int {
	n := 0
	for _, a := range r.Results {
		if a.Change != api.Unchanged {
			n++
		}
	}
	return n
}

// changes tells what became of each object.
func (c *cli) changes(r *api.ApplyResult, dryRun bool) {
	would := ""
	if dryRun {
		would = "would be "
	}
	unchanged := 0
	for _, a := range r.Results {
		if a.Change == api.Unchanged {
			unchanged++
			continue
		}
		fmt.Fprintf(c.out, "%s %s%s\n", a.Ref, would, a.Change)
		if a.Change == api.Changed {
			for _, d := range a.Diff {
				fmt.Fprintf(c.out, "  %s: %s\n", d.Path, difference(d))
			}
		}
	}
	if unchanged > 0 {
		fmt.Fprintf(c.out, "%s unchanged\n", count(unchanged, "object"))
	}
}

func difference(d api.Difference) string {
	was, is := value(d.Was), value(d.Is)
	switch {
	case d.Was == nil:
		return is + " is added"
	case d.Is == nil:
		return was + " is removed"
	}
	return was + " becomes " + is
}

// value writes a JSON value for people: short text without quotes.
func value(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw)
	}
	if r := []rune(strings.ReplaceAll(s, "\n", " ")); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	if s == "" {
		return `""`
	}
	return s
}

// settle waits until the content of what was applied is made: images, and the
// layers that blueprints choose.
func (c *cli) settle(ctx context.Context, set manifest.Set, timeout time.Duration) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	need := map[estate.Ref]bool{}
	for _, r := range set.Resources() {
		need[r.Header().Ref()] = true
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = (&plane{client: client}).waitForContent(ctx, need, newBar(c.err))
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.Unavailable.Errorf("not everything was made after %s; the work goes on: see 'consort image list' and 'consort get applications'", timeout)
	}
	return err
}
