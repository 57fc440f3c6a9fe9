package rpc

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/internal/near"
)

// strict decodes data into v, a pointer to a struct, and refuses what v has no
// place for: every unknown field and every wrong type is a problem at its path.
// at is the path of v itself.
func strict(data []byte, at string, v any) []estate.Problem {
	raw, err := decodeAny(data)
	if err != nil {
		return []estate.Problem{{Path: at, Text: "this is not JSON: " + err.Error()}}
	}
	var s shape
	s.value(at, raw, reflect.TypeOf(v).Elem())
	if len(s.problems) > 0 {
		return s.problems
	}
	if err := json.Unmarshal(data, v); err != nil {
		return []estate.Problem{{Path: at, Text: err.Error()}}
	}
	return nil
}

// decodeAny reads one JSON value and keeps its numbers as they are written.
func decodeAny(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if err == io.EOF {
			return nil, fmt.Errorf("it is empty")
		}
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows its end")
	}
	return v, nil
}

// shape collects where a value does not fit a type.
type shape struct{ problems []estate.Problem }

func (s *shape) wrong(path, format string, args ...any) {
	if len(s.problems) < 100 {
		s.problems = append(s.problems, estate.Problem{Path: path, Text: fmt.Sprintf(format, args...)})
	}
}

func (s *shape) value(path string, v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		if v == nil {
			return
		}
		t = t.Elem()
	}
	if t == reflect.TypeFor[json.RawMessage]() || t.Kind() == reflect.Interface {
		return
	}
	if isText(t) {
		s.text(path, v, t)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		s.fields(path, v, t)
	case reflect.Map:
		if m, ok := s.object(path, v); ok {
			for k, e := range m {
				s.value(join(path, k), e, t.Elem())
			}
		}
	case reflect.Slice, reflect.Array:
		s.list(path, v, t)
	default:
		s.scalar(path, v, t)
	}
}

func (s *shape) fields(path string, v any, t reflect.Type) {
	m, ok := s.object(path, v)
	if !ok {
		return
	}
	known := fieldsOf(t)
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	for _, k := range sortedKeys(m) {
		f, ok := known[k]
		if !ok {
			s.wrong(join(path, k), "there is no such field%s", near.DidYouMean(k, names, "there are"))
			continue
		}
		s.value(join(path, k), m[k], f)
	}
}

func (s *shape) object(path string, v any) (map[string]any, bool) {
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		s.wrong(path, "an object is expected, not %s", describe(v))
	}
	return m, ok
}

// bytes checks binary data, which JSON carries as text in base64 (RFC 4648).
func (s *shape) bytes(path string, v any) {
	text, ok := v.(string)
	if _, err := base64.StdEncoding.DecodeString(text); !ok || err != nil {
		s.wrong(path, "text in base64 is expected, not %s", describe(v))
	}
}

func (s *shape) list(path string, v any, t reflect.Type) {
	if v == nil {
		return
	}
	if t.Elem().Kind() == reflect.Uint8 {
		s.bytes(path, v)
		return
	}
	l, ok := v.([]any)
	if !ok {
		s.wrong(path, "a list is expected, not %s", describe(v))
		return
	}
	for i, e := range l {
		s.value(fmt.Sprintf("%s[%d]", path, i), e, t.Elem())
	}
}

func (s *shape) scalar(path string, v any, t reflect.Type) {
	switch t.Kind() {
	case reflect.String:
		if _, ok := v.(string); !ok {
			s.wrong(path, "a text is expected, not %s", describe(v))
		}
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			s.wrong(path, "true or false is expected, not %s", describe(v))
		}
	default:
		n, ok := v.(json.Number)
		if !ok {
			s.wrong(path, "a number is expected, not %s", describe(v))
			return
		}
		if _, err := strconv.ParseInt(n.String(), 10, t.Bits()); err != nil && t.Kind() != reflect.Float64 {
			s.wrong(path, "a whole number is expected, not %s", n)
		}
	}
}

func (s *shape) text(path string, v any, t reflect.Type) {
	str, ok := v.(string)
	if !ok {
		s.wrong(path, "a text is expected, not %s", describe(v))
		return
	}
	if err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(str)); err != nil {
		if t == reflect.TypeFor[time.Time]() {
			err = fmt.Errorf("%q is not a time; write 2006-01-02T15:04:05Z", str)
		}
		s.wrong(path, "%s", err)
	}
}

// describe names what a JSON value is, for people.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return "the text " + strconv.Quote(v)
	case json.Number:
		return "the number " + v.String()
	case []any:
		return "a list"
	}
	return "an object"
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fieldsOf returns the types of a struct's fields by their names on the wire,
// those of embedded structs among them.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for n, ft := range fieldsOf(f.Type) {
				fields[n] = ft
			}
		case f.IsExported() && name != "-" && name != "":
			fields[name] = f.Type
		}
	}
	return fields
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// readObject decodes a whole object of a kind that its own head names.
func readObject(data []byte, at string) (estate.Resource, []estate.Problem) {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, []estate.Problem{{Path: at, Text: "this is not an object: " + err.Error()}}
	}
	k, ok := estate.KindNamed(head.Kind)
	if !ok || string(k.Kind) != head.Kind {
		return nil, []estate.Problem{{Path: join(at, "kind"), Text: fmt.Sprintf("%q is not a kind%s", head.Kind, near.DidYouMean(head.Kind, kindNames(), "there are"))}}
	}
	r := k.New()
	return r, strict(data, at, r)
}

func kindNames() []string {
	var names []string
	for _, k := range estate.Kinds() {
		names = append(names, string(k.Kind))
	}
	return names
}

// invalid returns the error for broken rules of what.
func invalid(what string, problems []estate.Problem) error {
	n := "1 rule is broken"
	if len(problems) != 1 {
		n = fmt.Sprintf("%d rules are broken", len(problems))
	}
	return api.Invalid(what+": "+n+"; nothing was changed", problems)
}
