package manifest

import (
	"encoding"
	"reflect"
	"strings"
	"time"
)

// field is a field of one of the words, as its tags describe it.
type field struct {
	name     string // on the wire
	index    []int  // of reflect.Value.FieldByIndex
	typ      reflect.Type
	needed   bool // must be written
	omitZero bool
	enum     []string
	doc      string
	min, max string
}

// fieldsOf returns the fields of a struct in order, those of embedded structs
// in their place.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			for _, in := range fieldsOf(f.Type) {
				in.index = append([]int{i}, in.index...)
				out = append(out, in)
			}
			continue
		}
		if !f.IsExported() || name == "-" || name == "" {
			continue
		}
		omit := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		x := field{name: name, index: []int{i}, typ: f.Type, needed: !omit, omitZero: omit,
			doc: f.Tag.Get("doc"), min: f.Tag.Get("minimum"), max: f.Tag.Get("maximum")}
		if e := f.Tag.Get("enum"); e != "" {
			x.enum = strings.Split(e, ",")
		}
		out = append(out, x)
	}
	return out
}

func fieldNames(fs []field) []string {
	out := make([]string, len(fs))
	for i, f := range fs {
		out[i] = f.name
	}
	return out
}

// isText reports whether values of the type are written as one scalar by their
// own rules.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// isTime reports whether t is a point in time.
func isTime(t reflect.Type) bool { return t == reflect.TypeFor[time.Time]() }

// structsIn calls visit for t and every struct below it, once for each path, not
// going into maps, lists or a struct that contains itself.
func structsIn(t reflect.Type, path string, depth int, visit func(t reflect.Type, path string)) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isText(t) || depth == 0 {
		return
	}
	visit(t, path)
	for _, f := range fieldsOf(t) {
		structsIn(f.typ, join(path, f.name), depth-1, visit)
	}
}

// join appends a field's name to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
