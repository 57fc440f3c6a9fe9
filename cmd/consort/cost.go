package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"consort.dev/consort/api"
	"consort.dev/consort/compose"
	"consort.dev/consort/estate"
	"consort.dev/consort/manifest"
)

// stock is an estate as compose looks at it.
type stock struct {
	objects map[estate.Ref]estate.Resource
	offers  api.Offers
}

// costs tells what a set would mean for the desktops there are: which layer
// changes and what that takes, or why they could not be composed any more. Who
// may not see the inventory is told nothing.
func (c *cli) costs(ctx context.Context, set manifest.Set, result *api.ApplyResult) {
	client, err := c.plane()
	if err != nil || changed(result) == 0 {
		return
	}
	was, err := takeStock(ctx, client)
	if err != nil {
		return
	}
	is := stock{maps.Clone(was.objects), was.offers}
	for _, r := range set.Resources() {
		if old, ok := is.objects[r.Header().Ref()]; ok {
			keepStatus(r, old)
		}
		is.objects[r.Header().Ref()] = r
	}
	for _, d := range sortedOf[*estate.Desktop](was) {
		before, _ := was.plan(d)
		if d.Status.Plan != nil {
			before = *d.Status.Plan
		}
		after, reasons := is.plan(is.objects[d.Ref()].(*estate.Desktop))
		if before.Image == "" {
			continue // it never could be composed; that is nothing new
		}
		for _, r := range compose.Blocked(reasons) {
			fmt.Fprintf(c.out, "%s could not be composed: %s\n", d.Ref(), r)
		}
		for _, r := range compose.Waiting(reasons) {
			fmt.Fprintf(c.out, "%s would wait: %s\n", d.Ref(), r)
		}
		if after.Image == "" {
			continue
		}
		for _, ch := range compose.Diff(before, after) {
			if ch.Needs != compose.Nothing {
				fmt.Fprintf(c.out, "%s: %s\n", d.Ref(), ch)
			}
		}
	}
}

func takeStock(ctx context.Context, client *api.Client) (stock, error) {
	s := stock{objects: map[estate.Ref]estate.Resource{}}
	offers, err := client.Offers(ctx)
	if err != nil {
		return s, err
	}
	s.offers = *offers
	for _, k := range []estate.Kind{"Group", "Hypervisor", "Context", "Network", "Image", "Application", "Blueprint", "Volume", "Desktop", "Machine", "Grant"} {
		rs, _, err := client.ListKind(ctx, k, api.Filter{})
		if err != nil {
			return s, err
		}
		for _, r := range rs {
			s.objects[r.Header().Ref()] = r
		}
	}
	return s, nil
}

// keepStatus gives an applied object what the plane knows of it: a set does not
// change that.
func keepStatus(r, old estate.Resource) {
	labels := r.Header().Metadata.Labels
	r.Header().Metadata = old.Header().Metadata
	r.Header().Metadata.Labels = labels
	switch r := r.(type) {
	case *estate.Hypervisor:
		r.Status = old.(*estate.Hypervisor).Status
	case *estate.Image:
		r.Status = old.(*estate.Image).Status
	case *estate.Application:
		r.Status = old.(*estate.Application).Status
	case *estate.Desktop:
		r.Status = old.(*estate.Desktop).Status
	case *estate.Volume:
		r.Status, r.Spec.Holder = old.(*estate.Volume).Status, old.(*estate.Volume).Spec.Holder
	}
}

func (s stock) plan(d *estate.Desktop) (estate.Plan, []compose.Reason) {
	b, ok := s.objects[estate.Ref{Kind: "Blueprint", Project: d.Metadata.Project, Name: d.Spec.Blueprint}].(*estate.Blueprint)
	if !ok {
		return estate.Plan{}, nil
	}
	return compose.Plan(compose.Inventory{
		Hypervisors:   sortedOf[*estate.Hypervisor](s),
		Images:        sortedOf[*estate.Image](s),
		Applications:  sortedOf[*estate.Application](s),
		Contexts:      sortedOf[*estate.Context](s),
		Networks:      sortedOf[*estate.Network](s),
		Volumes:       sortedOf[*estate.Volume](s),
		Machines:      sortedOf[*estate.Machine](s),
		Grants:        sortedOf[*estate.Grant](s),
		Groups:        sortedOf[*estate.Group](s),
		Presentations: s.offers.Presentations,
		Deliveries:    s.offers.Deliveries,
	}, b, d)
}

// sortedOf returns the objects of a kind in order of project and name.
func sortedOf[T estate.Resource](s stock) []T {
	var refs []estate.Ref
	for ref, r := range s.objects {
		if _, ok := r.(T); ok {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, func(a, b estate.Ref) int { return strings.Compare(a.String(), b.String()) })
	out := make([]T, len(refs))
	for i, ref := range refs {
		out[i] = s.objects[ref].(T)
	}
	return out
}
