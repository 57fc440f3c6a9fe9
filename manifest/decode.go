package manifest

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"consort.dev/consort/estate"
	"consort.dev/consort/internal/near"
	"consort.dev/consort/manifest/openslo"
)

// read makes the document's object.
func (d *document) read(root *yaml.Node) {
	if root.Kind == yaml.AliasNode || root.Kind != yaml.MappingNode {
		d.r.fail(d.at, "", "an object was expected here; begin with apiVersion: "+estate.APIVersion)
		return
	}
	if speaksOpenSLO(root) {
		d.readOpenSLO(root)
		return
	}
	kind, ok := d.kind(root)
	if !ok {
		return
	}
	d.object = kind.New()
	d.shape, d.called = reflect.TypeOf(d.object), string(kind.Kind)
	d.value(root, reflect.ValueOf(d.object).Elem(), spot{depth: maxDepth})
	if *d.nodes < 0 {
		return
	}
	h := d.object.Header()
	if !kind.Global && h.Metadata.Project == "" && !d.tainted["metadata.project"] {
		h.Metadata.Project = d.r.project
	}
	if h.Metadata.Name != "" {
		if first, twice := d.r.seen[h.Ref()]; twice {
			d.complain("metadata.name", fmt.Sprintf("%s is in this set already, at %s; remove one of them", h.Ref(), first))
		} else {
			d.r.seen[h.Ref()] = d.placeOf("metadata.name")
		}
	}
	for _, p := range estate.Check(d.object) {
		if p.Path == "metadata.project" && h.Metadata.Project == "" {
			p.Text = "a " + string(kind.Kind) + " belongs to a project; write project: default"
		}
		if !d.said(p.Path) {
			d.complain(p.Path, p.Text)
		}
	}
	d.r.docs = append(d.r.docs, d)
}

// kind looks ahead for what sort of object it is.
func (d *document) kind(root *yaml.Node) (estate.KindInfo, bool) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if k.Value != "kind" {
			continue
		}
		info, ok := estate.KindNamed(v.Value)
		if ok && string(info.Kind) == v.Value {
			return info, true
		}
		var all []string
		for _, known := range estate.Kinds() {
			all = append(all, string(known.Kind))
		}
		text := fmt.Sprintf("there is no kind %q", v.Value) + near.DidYouMean(v.Value, all, "kinds")
		if ok {
			text = fmt.Sprintf("there is no kind %q; did you mean %s?", v.Value, info.Kind)
		}
		d.r.fail(place{d.at.file, v.Line, v.Column}, "kind", text)
		return estate.KindInfo{}, false
	}
	d.r.fail(d.at, "kind", "is missing; say what sort of object this is, as kind: Blueprint")
	return estate.KindInfo{}, false
}

// spot is where in an object a value stands.
type spot struct {
	path  string
	depth int // left
	enum  []string
}

func (s spot) in(path string) spot { return spot{path: path, depth: s.depth - 1} }

// value decodes a node into v.
func (d *document) value(n *yaml.Node, v reflect.Value, s spot) {
	at := place{d.at.file, n.Line, n.Column}
	if s.path != "" {
		d.places[s.path] = at
	}
	*d.nodes--
	switch {
	case *d.nodes < 0:
		if *d.nodes == -1 {
			d.wrong(at, s.path, "the file unfolds into too many values; write fewer aliases or split it")
		}
		return
	case s.depth <= 0:
		d.wrong(at, s.path, "nested too deeply")
		return
	case n.Kind == yaml.AliasNode:
		s.depth--
		d.value(n.Alias, v, s)
		d.places[s.path] = at
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.wrong(at, s.path, fmt.Sprintf("tags like %s are not used here; remove it", n.Tag))
		return
	case v.Kind() == reflect.Interface:
		d.free(n, v, s)
		return
	case isNull(n):
		d.wrong(at, s.path, emptyText(n))
		return
	}
	switch t := v.Type(); {
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		d.value(n, v.Elem(), s)
	case isText(t):
		d.text(n, v, s.path)
	case t.Kind() == reflect.Struct:
		d.fields(n, v, s)
	case t.Kind() == reflect.Slice:
		d.list(n, v, s)
	case t.Kind() == reflect.Map:
		d.labels(n, v, s)
	default:
		d.scalar(n, v, s)
	}
}

// emptyText explains a field without a value.
func emptyText(n *yaml.Node) string {
	if n.Value == "" {
		return "has no value; give it one (in quotes if it begins with #) or remove the line"
	}
	return n.Value + " is no value here; give one or remove the line"
}

// fields decodes a mapping into a struct.
func (d *document) fields(n *yaml.Node, v reflect.Value, s spot) {
	at := place{d.at.file, n.Line, n.Column}
	if n.Kind != yaml.MappingNode {
		d.wrong(at, s.path, fmt.Sprintf("fields were expected, not %s; write %s: and its fields below it", sort(n), last(s.path)))
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]place{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if *d.nodes--; *d.nodes < 0 {
			break
		}
		key, val := n.Content[i], n.Content[i+1]
		at := place{d.at.file, key.Line, key.Column}
		name, ok := d.key(key, s.path, seen)
		if !ok {
			continue
		}
		j := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if j < 0 {
			d.unknown(at, name, s.path, fields)
			continue
		}
		if d.open != nil && isNull(val) && !fields[j].needed {
			continue // OpenSLO's own examples write alertPolicies: with nothing below it
		}
		next := s.in(join(s.path, name))
		next.enum = fields[j].enum
		d.value(val, v.FieldByIndex(fields[j].index), next)
	}
	for _, f := range fields {
		path := join(s.path, f.name)
		if _, written := seen[f.name]; f.needed && !written && !d.tainted[path] {
			at := place{d.at.file, n.Line, n.Column}
			d.taint(path)
			d.r.fail(at, path, missing(f))
		}
	}
}

// missing says what to write for a field that must be there.
func missing(f field) string {
	switch {
	case f.name == "apiVersion":
		return "is missing; begin with apiVersion: " + f.enum[0]
	case f.name == "metadata":
		return "is missing; say who this is, as metadata: {name: ana-office}"
	case f.name == "spec":
		return "is missing; say what is wanted, or write spec: {} when there is nothing to say"
	case f.name == "name" && f.doc == "":
		return "is missing"
	case len(f.enum) > 0:
		return "is missing; one of " + strings.Join(f.enum, ", ")
	case f.doc != "":
		return "is missing. " + f.doc
	}
	return "is missing"
}

// key returns a field's name, once.
func (d *document) key(key *yaml.Node, path string, seen map[string]place) (string, bool) {
	at := place{d.at.file, key.Line, key.Column}
	switch {
	case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0:
		d.wrong(at, path, "a field's name was expected; write name: value")
		return "", false
	case key.ShortTag() == "!!merge":
		d.wrong(at, path, "fields are not merged with <<; write them out")
		return "", false
	}
	if first, twice := seen[key.Value]; twice {
		d.wrong(at, join(path, key.Value), fmt.Sprintf("is written twice, first in line %d; remove one of them", first.line))
		return "", false
	}
	seen[key.Value] = at
	return key.Value, true
}

// unknown reports a field that does not exist, with the one that was meant.
func (d *document) unknown(at place, name, path string, fields []field) {
	if len(d.r.errs) >= maxErrors {
		return
	}
	names := fieldNames(fields)
	full := join(path, name)
	if meant := near.Name(name, names); meant != "" {
		d.taint(join(path, meant))
		d.r.fail(at, full, "no such field; did you mean "+meant+"?")
		return
	}
	var elsewhere []string
	structsIn(d.shape, "", 5, func(t reflect.Type, p string) {
		if p != path && (p == "" || !strings.HasPrefix(p, "status")) && slices.Contains(fieldNames(fieldsOf(t)), name) {
			elsewhere = append(elsewhere, join(p, name))
		}
	})
	if len(elsewhere) > 0 {
		d.taint(elsewhere[0])
		d.r.fail(at, full, "no such field here; it belongs at "+strings.Join(elsewhere, " or "))
		return
	}
	what := "fields here"
	if path == "" {
		what = "fields of a " + d.called
	}
	d.r.fail(at, full, "no such field; "+what+": "+strings.Join(names, ", "))
}

// list decodes a sequence.
func (d *document) list(n *yaml.Node, v reflect.Value, s spot) {
	if n.Kind == yaml.ScalarNode && v.Type() == reflect.TypeFor[openslo.Texts]() {
		one := reflect.New(v.Type().Elem()).Elem()
		d.scalar(n, one, s)
		v.Set(reflect.Append(v, one))
		return
	}
	if n.Kind != yaml.SequenceNode {
		at := place{d.at.file, n.Line, n.Column}
		text := fmt.Sprintf("a list was expected, not %s; begin each item with -", sort(n))
		if n.Kind == yaml.ScalarNode {
			text = fmt.Sprintf("a list was expected, not %s; write [%s]", sort(n), n.Value)
		}
		d.wrong(at, s.path, text)
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, min(len(n.Content), 1024))
	for i, item := range n.Content {
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(item, one, s.in(fmt.Sprintf("%s[%d]", s.path, i)))
		out = reflect.Append(out, one)
		if *d.nodes < 0 {
			break
		}
	}
	v.Set(out)
}

// labels decodes a mapping of free names.
func (d *document) labels(n *yaml.Node, v reflect.Value, s spot) {
	if n.Kind != yaml.MappingNode {
		d.wrong(place{d.at.file, n.Line, n.Column}, s.path, fmt.Sprintf("names with values were expected, not %s; write name: value", sort(n)))
		return
	}
	out := reflect.MakeMap(v.Type())
	seen := map[string]place{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := d.key(n.Content[i], s.path, seen)
		if !ok {
			continue
		}
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], one, s.in(join(s.path, name)))
		out.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), one)
	}
	v.Set(out)
}

// text decodes a scalar of a type with rules of its own.
func (d *document) text(n *yaml.Node, v reflect.Value, path string) {
	at := place{d.at.file, n.Line, n.Column}
	if n.Kind != yaml.ScalarNode {
		d.wrong(at, path, fmt.Sprintf("one value was expected, not %s", sort(n)))
		return
	}
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value))
	switch {
	case err == nil:
	case isTime(v.Type()):
		d.wrong(at, path, fmt.Sprintf("%q is not a time; write 2026-01-31T09:30:00Z", n.Value))
	default:
		d.wrong(at, path, err.Error())
	}
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// scalar decodes a string, a number, or true and false.
func (d *document) scalar(n *yaml.Node, v reflect.Value, s spot) {
	at := place{d.at.file, n.Line, n.Column}
	if n.Kind != yaml.ScalarNode {
		d.wrong(at, s.path, fmt.Sprintf("%s was expected, not %s", wanted(v.Kind()), sort(n)))
		return
	}
	tag := n.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" && tag != "!!timestamp" && tag != "!!merge" {
			d.wrong(at, s.path, fmt.Sprintf("text was expected, and %s is %s; write %q", n.Value, sort(n), n.Value))
			return
		}
		v.SetString(n.Value)
		if len(s.enum) > 0 && !slices.Contains(s.enum, n.Value) {
			text := fmt.Sprintf("%q is not one of %s", n.Value, strings.Join(s.enum, ", "))
			if len(s.enum) == 1 {
				text = fmt.Sprintf("%q is not known; write %s", n.Value, s.enum[0])
			}
			if meant := near.Name(n.Value, s.enum); meant != "" && len(s.enum) > 1 {
				text += "; did you mean " + meant + "?"
			}
			d.wrong(at, s.path, text)
		}
	case reflect.Bool:
		if tag != "!!bool" {
			d.wrong(at, s.path, fmt.Sprintf("true or false was expected, not %q", n.Value))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Float64:
		d.fraction(n, v, s.path)
	default:
		d.number(n, v, s.path)
	}
}

// fraction reads a number that need not be whole; infinity and what is no
// number are refused, for JSON has neither.
func (d *document) fraction(n *yaml.Node, v reflect.Value, path string) {
	f, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || n.ShortTag() == "!!str" || math.IsInf(f, 0) || math.IsNaN(f) {
		d.wrong(place{d.at.file, n.Line, n.Column}, path, fmt.Sprintf("a number was expected, not %q", n.Value))
		return
	}
	v.SetFloat(f)
}

func (d *document) number(n *yaml.Node, v reflect.Value, path string) {
	at := place{d.at.file, n.Line, n.Column}
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	switch {
	case decimal.MatchString(n.Value) && quoted:
		d.wrong(at, path, fmt.Sprintf("a number was expected, and %q is text; remove the quotes", n.Value))
	case !decimal.MatchString(n.Value):
		d.wrong(at, path, fmt.Sprintf("a whole number was expected, not %q", n.Value))
	default:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil || v.OverflowInt(i) {
			d.wrong(at, path, n.Value+" is too large")
			return
		}
		v.SetInt(i)
	}
}

// sort names what a node is, for people.
func sort(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	}
	return "text"
}

func wanted(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	}
	if k == reflect.Float64 {
		return "a number"
	}
	return "a whole number"
}

// last is the field's own name.
func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
