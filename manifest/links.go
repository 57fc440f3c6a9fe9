package manifest

import (
	"fmt"
	"slices"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/near"
)

// wrong reports a broken value and remembers that its field has been spoken of.
func (d *document) wrong(at place, path, text string) {
	d.taint(path)
	d.r.fail(at, path, text)
}

// complain reports a broken rule at the field, or where the field would be.
func (d *document) complain(path, text string) { d.r.fail(d.placeOf(path), path, text) }

func (d *document) taint(path string) { d.tainted[path] = true }

// said reports whether something was said already about the field, a part of it,
// or what it is a part of: then a broken rule only follows from that.
func (d *document) said(path string) bool {
	for t := range d.tainted {
		if t == path || within(t, path) || within(path, t) {
			return true
		}
	}
	return false
}

// within reports whether path lies inside outer.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (outer == "" || rest != "" && (rest[0] == '.' || rest[0] == '['))
}

// placeOf returns the place of the field, or of the nearest thing around it.
func (d *document) placeOf(path string) place {
	for path != "" {
		if at, ok := d.places[path]; ok {
			return at
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return d.at
}

// links reports every mention of an object that neither the set nor the estate
// has.
func (r *reading) links(known func(estate.Kind, string) ([]string, error)) error {
	there := map[estate.Ref][]string{} // by kind and project, name empty
	for ref := range r.seen {
		group := estate.Ref{Kind: ref.Kind, Project: ref.Project}
		there[group] = append(there[group], ref.Name)
	}
	asked := map[estate.Ref]bool{}
	for _, d := range r.docs {
		for _, l := range estate.LinksOf(d.object) {
			if l.To == (estate.Ref{Kind: "Project", Name: firstProject}) || estate.NameProblem(l.To.Name) != "" || d.said(l.Path) || !d.whole(l) {
				continue
			}
			group := estate.Ref{Kind: l.To.Kind, Project: l.To.Project}
			if known != nil && !asked[group] && !slices.Contains(there[group], l.To.Name) {
				names, err := known(l.To.Kind, l.To.Project)
				if err != nil {
					return err
				}
				asked[group] = true
				there[group] = append(there[group], names...)
			}
			if !slices.Contains(there[group], l.To.Name) {
				d.complain(l.Path, nothing(l.To, there[group]))
			}
		}
	}
	return nil
}

// whole reports whether it is known what kind of object, in which project, the
// link leads to: where that is wrong, it was said already.
func (d *document) whole(l estate.Link) bool {
	info, ok := estate.KindNamed(string(l.To.Kind))
	kind := l.Path[:strings.LastIndexByte(l.Path, '.')+1] + "kind"
	return ok && !d.tainted[kind] && (info.Global || l.To.Project != "")
}

// firstProject is there from a plane's first day; a set need not make it.
const firstProject = "default"

// nothing says that a reference leads nowhere, and where it may have been meant to lead.
func nothing(to estate.Ref, there []string) string {
	kind := strings.ToLower(string(to.Kind))
	text := fmt.Sprintf("there is no %s %s", kind, to.Name)
	if to.Project != "" {
		text += " in project " + to.Project
	}
	if more := near.DidYouMean(to.Name, slices.Compact(slices.Sorted(slices.Values(there))), "there are"); more != "" {
		return text + more
	}
	return text + "; put it in the same set or apply it first"
}
