package manifest

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/near"
	"consort.dev/consort/manifest/openslo"
)

// LoadOpenSLO reads documents of OpenSLO v1, as strictly as Load reads ours, in
// the order in which they were written. Errors are those of Load.
func (l *Loader) LoadOpenSLO(paths ...string) ([]openslo.Object, error) {
	r, err := l.readAll(paths)
	if err != nil {
		return nil, err
	}
	for _, d := range r.docs {
		d.complain("apiVersion", "this is an object of ours and no document of OpenSLO; write "+openslo.APIVersion+" or put it elsewhere")
	}
	if len(r.errs) > 0 {
		return nil, fault.Invalid.Errorf("%w", r.errs.sorted())
	}
	var out []openslo.Object
	for _, d := range r.open {
		out = append(out, d.open)
	}
	if len(out) == 0 {
		return nil, fault.Invalid.Errorf("%s: no documents in it; begin one with apiVersion: %s", strings.Join(paths, " "), openslo.APIVersion)
	}
	return out, nil
}

// speaksOpenSLO reports whether a document says that it is one of OpenSLO, of
// any version.
func speaksOpenSLO(root *yaml.Node) bool {
	v := child(root, "apiVersion")
	return v != nil && strings.HasPrefix(strings.ToLower(v.Value), "openslo")
}

// child returns the value of a field, or nil.
func child(root *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == name {
			return root.Content[i+1]
		}
	}
	return nil
}

// readOpenSLO makes a document of OpenSLO.
func (d *document) readOpenSLO(root *yaml.Node) {
	if v := child(root, "apiVersion"); v.Value != openslo.APIVersion {
		d.r.fail(place{d.at.file, v.Line, v.Column}, "apiVersion", fmt.Sprintf("%q is not a version we speak; use %s", v.Value, openslo.APIVersion))
		return
	}
	k := child(root, "kind")
	if k == nil {
		d.r.fail(d.at, "kind", "is missing; say what sort of document this is, as kind: SLO")
		return
	}
	if d.open = openslo.New(k.Value); d.open == nil {
		var all []string
		for _, o := range openslo.Kinds() {
			all = append(all, o.Header().Kind)
		}
		d.r.fail(place{d.at.file, k.Line, k.Column}, "kind", fmt.Sprintf("OpenSLO has no kind %q", k.Value)+near.DidYouMean(k.Value, all, "kinds"))
		return
	}
	d.shape, d.called = reflect.TypeOf(d.open), k.Value
	d.value(root, reflect.ValueOf(d.open).Elem(), spot{depth: maxDepth})
	if *d.nodes < 0 {
		return
	}
	name := d.called + " " + d.open.Header().Metadata.Name
	if first, twice := d.r.openSeen[name]; twice {
		d.complain("metadata.name", fmt.Sprintf("%s is in this set already, at %s; remove one of them", name, first))
	}
	d.r.openSeen[name] = d.placeOf("metadata.name")
	for _, p := range d.open.Check() {
		if !d.said(p.Path) {
			d.complain(p.Path, p.Text)
		}
	}
	d.r.open = append(d.r.open, d)
}

// levels turns the SLOs that were read into service levels of the set. The other
// kinds only say what SLOs need; what a plane would have to keep, and does not,
// is refused.
func (r *reading) levels() {
	indicators := map[string]*openslo.SLI{}
	for _, d := range r.open {
		if sli, is := d.open.(*openslo.SLI); is {
			indicators[sli.Metadata.Name] = sli
		}
	}
	for _, d := range r.open {
		switch o := d.open.(type) {
		case *openslo.SLI, *openslo.Service:
		case *openslo.SLO:
			if len(d.tainted) > 0 || len(o.Check()) > 0 {
				continue
			}
			if ref := o.Spec.IndicatorRef; ref != "" && indicators[ref] == nil {
				d.complain("spec.indicatorRef", "there is no SLI "+ref+" in this set"+
					near.DidYouMean(ref, slices.Collect(maps.Keys(indicators)), "there are"))
			}
			levels, problems := openslo.Levels(o, func(name string) *openslo.SLI { return indicators[name] })
			for _, p := range problems {
				d.wrong(d.placeOf(p.Path), p.Path, p.Text)
			}
			for i, l := range levels {
				d.level(i, l)
			}
		default:
			d.complain("kind", "a plane keeps no "+d.called+" and would not act on it; leave it out of what is applied")
		}
	}
}

// level adds a service level that an objective of the document stands for.
func (d *document) level(i int, l *estate.ServiceLevel) {
	l.Metadata.Project = d.r.project
	twin := *d
	twin.open, twin.object = nil, l
	if first, twice := d.r.seen[l.Ref()]; twice {
		d.complain("metadata.name", fmt.Sprintf("%s is in this set already, at %s; remove one of them", l.Ref(), first))
	}
	d.r.seen[l.Ref()] = d.placeOf("metadata.name")
	objective := fmt.Sprintf("spec.objectives[%d]", i)
	for _, p := range estate.Check(l) {
		if to, is := map[string]string{
			"spec.application": "spec.service", "spec.window.last": "spec.timeWindow[0].duration",
			"spec.window.begins":   "spec.timeWindow[0].calendar.startTime",
			"spec.window.timeZone": "spec.timeWindow[0].calendar.timeZone", "spec.target": objective + ".target",
			"spec.slice.length": objective + ".timeSliceWindow", "spec.slice.good": objective + ".timeSliceTarget",
		}[p.Path]; is {
			p.Path = to
		}
		if !d.said(p.Path) {
			d.complain(p.Path, p.Text)
		}
	}
	d.r.docs = append(d.r.docs, &twin)
}

// isNull reports whether a node says that there is no value.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// free decodes any YAML: what only its reader understands.
func (d *document) free(n *yaml.Node, v reflect.Value, s spot) {
	at := place{d.at.file, n.Line, n.Column}
	var out any
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		d.labels(n, reflect.ValueOf(&m).Elem(), s)
		out = m
	case yaml.SequenceNode:
		l := []any{}
		d.list(n, reflect.ValueOf(&l).Elem(), s)
		out = l
	default:
		switch n.ShortTag() {
		case "!!null":
			return
		case "!!bool", "!!int", "!!float":
			if err := n.Decode(&out); err != nil {
				d.wrong(at, s.path, fmt.Sprintf("%q is no number; put it in quotes if it is text", n.Value))
				return
			}
		default: // a time too: only its reader knows what it means
			out = n.Value
		}
	}
	switch x := out.(type) {
	case int:
		out = int64(x)
	case uint64:
		d.wrong(at, s.path, n.Value+" is too large")
		return
	case float64:
		if math.IsInf(x, 0) || math.IsNaN(x) {
			d.wrong(at, s.path, fmt.Sprintf("a number was expected, not %q", n.Value))
			return
		}
	}
	v.Set(reflect.ValueOf(out))
}

// MarshalOpenSLO writes documents as YAML that LoadOpenSLO reads back.
func MarshalOpenSLO(docs ...openslo.Object) ([]byte, error) {
	var out []byte
	for i, o := range docs {
		if i > 0 {
			out = append(out, "---\n"...)
		}
		text, err := MarshalValue(o)
		if err != nil {
			return nil, err
		}
		out = append(out, text...)
	}
	return out, nil
}
