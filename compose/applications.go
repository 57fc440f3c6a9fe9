package compose

import (
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
)

func (c *composition) applications() {
	for i, choice := range c.b.Spec.Applications {
		path := fmt.Sprintf("spec.applications[%d]", i)
		app, ok := named(c.in.Applications, choice.Name)
		if !ok {
			c.block(path+".name", "there is no application %s; %s", choice.Name, have("applications", names(c.in.Applications, nil)))
			continue
		}
		if !c.entitled(app) {
			c.note(path, "%s is left out: %s may not use it; grant it to them or to one of their groups", choice.Name, c.d.Spec.Person)
			continue
		}
		version, ok := app.Spec.Version(choice.Version)
		if !ok {
			c.block(path+".version", "application %s has no version %s; it has %s", choice.Name, choice.Version, versions(app))
			continue
		}
		before := len(c.reasons)
		if c.fits(path, app); len(c.reasons) == before {
			c.layer(path, app, version.Name)
		}
	}
}

func versions(app *estate.Application) string {
	var all []string
	for _, v := range app.Spec.Versions {
		all = append(all, v.Name)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// entitled reports whether the desktop's person may use the application. A seat
// is made before it has a person: who may use its pool may use what is on it.
func (c *composition) entitled(app *estate.Application) bool {
	if c.d == nil || c.d.Spec.Pool != "" {
		return true
	}
	var groups []string
	for _, g := range c.in.Groups {
		if slices.Contains(g.Spec.Members, c.d.Spec.Person) {
			groups = append(groups, g.Metadata.Name)
		}
	}
	return slices.ContainsFunc(c.in.Grants, func(g *estate.Grant) bool {
		return g.Metadata.Deleting.IsZero() && g.Gives(c.d.Spec.Person, groups, estate.Use, app.Ref())
	})
}

// fits checks what the application and its delivery ask of the desktop.
func (c *composition) fits(path string, app *estate.Application) {
	name, needs := app.Metadata.Name, app.Spec.Needs
	i := slices.IndexFunc(c.in.Deliveries, func(o estate.DeliveryOffer) bool { return o.Name == app.Spec.Delivery })
	if i < 0 {
		var offered []string
		for _, o := range c.in.Deliveries {
			offered = append(offered, o.Name)
		}
		c.block(path, "application %s is delivered by %s, which is not offered here; %s", name, app.Spec.Delivery, have("deliveries", offered))
	} else {
		offer := c.in.Deliveries[i]
		for _, n := range offer.Needs {
			c.need(n, "", "application "+name)
		}
		if offer.Agent && c.img != nil && !c.guest.Agent {
			c.block(path, "application %s is delivered by %s, which needs an agent in the guest; image %s has none; %s", name, offer.Name,
				c.b.Spec.Image, c.others("images that do", func(g estate.GuestFacts) bool { return g.Agent }))
		}
	}
	if c.img == nil {
		return
	}
	if needs.OS != "" && needs.OS != c.guest.OS {
		c.block(path, "application %s needs %s; image %s is %s; %s", name, needs.OS, c.b.Spec.Image, orUnknown(c.guest.OS),
			c.others("images that are", func(g estate.GuestFacts) bool { return g.OS == needs.OS }))
	}
	if needs.Screen && !c.guest.Screen {
		c.block(path, "application %s draws windows; image %s draws no desktop; %s", name, c.b.Spec.Image,
			c.others("images that do", func(g estate.GuestFacts) bool { return g.Screen }))
	}
	if have := c.plan.Hardware.Memory; needs.Memory > have {
		c.block(path, "application %s needs %s of memory; the desktop has %s: raise spec.size.memory", name, needs.Memory, have)
	}
}

func orUnknown(os string) string {
	if os == "" {
		return "of an unknown system"
	}
	return os
}

// layer adds the layer cut for the image, or says how far it is.
func (c *composition) layer(path string, app *estate.Application, version string) {
	if c.img == nil || c.plan.Image == "" {
		return
	}
	what := fmt.Sprintf("application %s %s for image %s", app.Metadata.Name, version, c.b.Spec.Image)
	l, ok := app.Status.Layer(version, c.plan.Image)
	switch {
	case ok && l.Digest != "":
		c.plan.Layers = append(c.plan.Layers, estate.Layer{
			Application: app.Metadata.Name, Version: version, Digest: l.Digest, Delivery: app.Spec.Delivery,
		})
	case ok && l.Text != "" && l.Work == nil:
		c.block(path, "%s could not be built: %s", what, strings.TrimRight(l.Text, "."))
	default:
		c.wait(path, "%s", beingBuilt(what, l.Work, estate.Condition{}))
	}
}
