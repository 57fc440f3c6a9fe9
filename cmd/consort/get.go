package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest"
	"consort.dev/consort/manifest/openslo"
)

// listing is which objects get shows, and how.
type listing struct {
	kind   estate.KindInfo
	names  []string
	labels map[string]string
	format string
	all    bool // projects
	watch  bool
}

func newGet(c *cli) *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "Show objects in a table, or as YAML or JSON",
		Example: `  consort get desktops
  consort get desktop ana-office -o yaml
  consort get machines -A --watch
  consort get hypervisors -l rack=7`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: c.completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := c.refs(args)
			if err != nil {
				return err
			}
			word, _, _ := strings.Cut(args[0], "/")
			if l.kind, err = kind(word); err != nil {
				return err
			}
			for _, r := range refs {
				if r.Kind != l.kind.Kind {
					return usage{errors.New("get shows one kind at a time; call it once for each")}
				}
				l.names = append(l.names, r.Name)
			}
			return c.get(cmd.Context(), l)
		},
	}
	c.projectFlag(cmd)
	listFlags(cmd, &l)
	return cmd
}

func listFlags(cmd *cobra.Command, l *listing) {
	f := cmd.Flags()
	f.StringVarP(&l.format, "output", "o", "table", "table, yaml or json; openslo for service levels")
	f.StringToStringVarP(&l.labels, "labels", "l", nil, "only objects with these labels, as rack=7,site=north")
	f.BoolVarP(&l.all, "all-projects", "A", false, "objects of all projects")
	f.BoolVarP(&l.watch, "watch", "w", false, "go on with every change")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "yaml", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (c *cli) get(ctx context.Context, l listing) error {
	openSLO := l.format == "openslo" && l.kind.Kind == "ServiceLevel" && !l.watch
	if !openSLO && !slices.Contains([]string{"table", "yaml", "json"}, l.format) {
		return usage{fmt.Errorf("there is no form %q; use -o table, yaml or json", l.format)}
	}
	client, err := c.plane()
	if err != nil {
		return err
	}
	if l.watch {
		return c.follow(ctx, client, l)
	}
	found, err := c.fetch(ctx, client, l)
	if err != nil {
		return err
	}
	return c.print(l, found)
}

func (c *cli) inProject(l listing) string {
	if l.all || l.kind.Global {
		return ""
	}
	return c.project
}

func (c *cli) fetch(ctx context.Context, client *api.Client, l listing) ([]estate.Resource, error) {
	if len(l.names) == 0 || l.all {
		found, _, err := client.ListKind(ctx, l.kind.Kind, api.Filter{Project: c.inProject(l), Labels: l.labels})
		if len(l.names) > 0 {
			found = slices.DeleteFunc(found, func(r estate.Resource) bool { return !slices.Contains(l.names, r.Header().Metadata.Name) })
		}
		return found, err
	}
	var found []estate.Resource
	for _, name := range l.names {
		r, err := client.Load(ctx, c.ref(l.kind, name))
		if err != nil {
			return nil, c.absent(ctx, client, c.ref(l.kind, name), err)
		}
		found = append(found, r)
	}
	return found, nil
}

// absent says what there is instead of an object that is not there.
func (c *cli) absent(ctx context.Context, client *api.Client, ref estate.Ref, err error) error {
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	text := fmt.Sprintf("there is no %s %s", strings.ToLower(string(ref.Kind)), ref.Name)
	if ref.Project != "" {
		text += " in project " + ref.Project
	}
	rs, _, listErr := client.ListKind(ctx, ref.Kind, api.Filter{Project: ref.Project})
	if listErr != nil || len(rs) == 0 {
		return fault.NotFound.Errorf("%s", text)
	}
	var names []string
	for _, r := range rs[:min(len(rs), 12)] {
		names = append(names, r.Header().Metadata.Name)
	}
	return fault.NotFound.Errorf("%s; there are: %s", text, strings.Join(names, ", "))
}

func (c *cli) print(l listing, found []estate.Resource) error {
	switch {
	case l.format == "yaml":
		return c.yaml(found)
	case l.format == "openslo":
		return c.openSLO(found)
	case l.format == "json" && len(l.names) == 1 && len(found) == 1:
		return c.json(found[0])
	case l.format == "json":
		if found == nil {
			found = []estate.Resource{}
		}
		return c.json(map[string]any{"items": found})
	case len(found) == 0:
		where := ""
		if p := c.inProject(l); p != "" {
			where = " in project " + p
		}
		fmt.Fprintf(c.err, "no %s%s\n", l.kind.Plural, where)
		return nil
	}
	t := newTable(l.kind.Kind, l.all && !l.kind.Global)
	for _, r := range found {
		t.add(r, time.Now())
	}
	return t.write(c.out)
}

// openSLO prints service levels as documents of OpenSLO v1. One that OpenSLO has
// no words for is fault.Unsupported, and nothing is printed.
func (c *cli) openSLO(found []estate.Resource) error {
	var docs []openslo.Object
	for _, r := range found {
		slo, ok := openslo.Of(r.(*estate.ServiceLevel))
		if !ok {
			return fault.Unsupported.Errorf("%s: OpenSLO has words only for what queries measure; use -o yaml", r.Header().Ref())
		}
		docs = append(docs, slo)
	}
	text, err := manifest.MarshalOpenSLO(docs...)
	if err != nil {
		return err
	}
	_, err = c.out.Write(text)
	return err
}

func (c *cli) yaml(found []estate.Resource) error {
	for i, r := range found {
		text, err := manifest.Marshal(r)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(c.out, "---")
		}
		if _, err := c.out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) json(v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, string(text))
	return err
}

// follow prints what there is, then every change, until the context ends.
func (c *cli) follow(ctx context.Context, client *api.Client, l listing) error {
	var first []estate.Resource
	synced := false
	t := newTable(l.kind.Kind, l.all && !l.kind.Global)
	for e := range client.WatchKinds(ctx, c.inProject(l), l.kind.Kind) {
		switch e.Type {
		case api.Ended:
			return e.Err
		case api.Lost:
			fmt.Fprintf(c.err, "consort: %s; trying again\n", e.Err)
		case api.Synced:
			if !synced && l.format == "table" {
				for _, r := range first {
					t.add(r, time.Now())
				}
				if err := t.write(c.out); err != nil {
					return err
				}
			}
			synced = true
		case api.Is, api.Gone:
			if !l.picks(e.Object) {
				continue
			}
			if !synced && l.format == "table" {
				first = append(first, e.Object)
				continue
			}
			if err := c.change(l, t, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l listing) picks(r estate.Resource) bool {
	for k, v := range l.labels {
		if r.Header().Metadata.Labels[k] != v {
			return false
		}
	}
	return len(l.names) == 0 || slices.Contains(l.names, r.Header().Metadata.Name)
}

// change prints one event of a watch: JSON as a line, as scripts like it.
func (c *cli) change(l listing, t *table, e api.Event) error {
	switch l.format {
	case "json":
		line, err := json.Marshal(struct {
			Type   api.EventType   `json:"type"`
			Object estate.Resource `json:"object"`
		}{e.Type, e.Object})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.out, string(line))
		return err
	case "yaml":
		if e.Type == api.Gone {
			_, err := fmt.Fprintf(c.out, "---\n# %s is gone\n", e.Object.Header().Ref())
			return err
		}
		fmt.Fprintln(c.out, "---")
		return c.yaml([]estate.Resource{e.Object})
	}
	if e.Type == api.Gone {
		_, err := fmt.Fprintf(c.out, "%s is gone\n", e.Object.Header().Ref())
		return err
	}
	t.rows = nil
	t.add(e.Object, time.Now())
	return t.line(c.out)
}

func newWatch(c *cli) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "watch [KIND...]",
		Short: "Tell in one sentence whatever happens",
		Long:  "Tells what happens to desktops, machines, sessions, images and applications, or\nto the kinds given, until it is interrupted.",
		Example: `  consort watch
  consort watch desktops sessions
  consort watch events -A`,
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, s string) ([]string, cobra.ShellCompDirective) {
			return c.completeKinds(cmd, nil, s)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds := []estate.Kind{"Desktop", "Machine", "Session", "Image", "Application"}
			if len(args) > 0 {
				kinds = nil
			}
			for _, a := range args {
				k, err := kind(a)
				if err != nil {
					return err
				}
				kinds = append(kinds, k.Kind)
				all = all || k.Global
			}
			return c.watch(cmd.Context(), all, kinds)
		},
	}
	c.projectFlag(cmd)
	cmd.Flags().BoolVarP(&all, "all-projects", "A", false, "objects of all projects")
	return cmd
}

func (c *cli) watch(ctx context.Context, all bool, kinds []estate.Kind) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	project := c.project
	if all {
		project = ""
	}
	said := map[estate.Ref]string{}
	for e := range client.WatchKinds(ctx, project, kinds...) {
		switch e.Type {
		case api.Ended:
			return e.Err
		case api.Lost:
			fmt.Fprintf(c.err, "consort: %s; trying again\n", e.Err)
		case api.Gone:
			fmt.Fprintf(c.out, "%s  %s is gone\n", time.Now().Format(time.TimeOnly), e.Object.Header().Ref())
			delete(said, e.Object.Header().Ref())
		case api.Is:
			ref := e.Object.Header().Ref()
			if text := progress(e.Object); text != said[ref] {
				said[ref] = text
				fmt.Fprintf(c.out, "%s  %s: %s\n", time.Now().Format(time.TimeOnly), ref, text)
			}
		}
	}
	return nil
}
