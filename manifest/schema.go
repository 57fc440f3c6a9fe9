package manifest

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// SchemaBase is where the schemas are found by editors.
const SchemaBase = "https://consort.dev/schema/v1/"

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		k, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		out.Write(k)
		out.WriteByte(':')
		out.Write(v)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// Schemas returns the JSON Schemas (draft 2020-12) of all kinds by file name:
// one for each kind, and consort.json for a file of any kind. Editors find them
// through a first line such as
//
//	# yaml-language-server: $schema=https://consort.dev/schema/v1/consort.json
func Schemas() (map[string][]byte, error) {
	out := map[string][]byte{}
	var each []any
	for _, k := range estate.Kinds() {
		file := strings.ToLower(string(k.Kind)) + ".json"
		text, err := Schema(k.Kind)
		if err != nil {
			return nil, err
		}
		out[file] = text
		each = append(each, object{
			{"if", object{{"properties", object{{"kind", object{{"const", k.Kind}}}}}, {"required", []string{"kind"}}}},
			{"then", object{{"$ref", file}}},
		})
	}
	var kinds []estate.Kind
	for _, k := range estate.Kinds() {
		kinds = append(kinds, k.Kind)
	}
	text, err := indent(object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", SchemaBase + "consort.json"},
		{"title", "Consort manifest"},
		{"type", "object"},
		{"required", []string{"apiVersion", "kind", "metadata", "spec"}},
		{"properties", object{{"kind", object{{"enum", kinds}}}}},
		{"allOf", each},
	})
	out["consort.json"] = text
	return out, err
}

// Schema returns the JSON Schema of one kind. An unknown kind is fault.NotFound.
func Schema(kind estate.Kind) ([]byte, error) {
	info, ok := estate.KindNamed(string(kind))
	if !ok {
		return nil, fault.NotFound.Errorf("there is no kind %q", kind)
	}
	s := &schemas{}
	root := s.fields(reflect.TypeOf(info.New()).Elem(), string(info.Kind))
	doc := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", SchemaBase + strings.ToLower(string(info.Kind)) + ".json"},
		{"title", info.Kind},
		{"description", info.Doc},
	}
	doc = append(doc, root...)
	return indent(append(doc, member{"$defs", s.defs}))
}

func indent(v any) ([]byte, error) {
	compact, err := json.Marshal(v)
	if err != nil {
		return nil, fault.Internal.Errorf("write schema: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, compact, "", "  "); err != nil {
		return nil, fault.Internal.Errorf("write schema: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// schemas collects the definitions that one schema uses.
type schemas struct {
	defs object
}

// fields returns what is said of a struct. kind is set for the object itself.
func (s *schemas) fields(t reflect.Type, kind string) object {
	var props object
	required := []string{}
	for _, f := range fieldsOf(t) {
		one := s.of(f.typ)
		if kind != "" && f.name == "kind" {
			one = object{{"const", kind}}
		}
		if len(f.enum) > 0 {
			one = append(one, member{"enum", f.enum})
		}
		for _, limit := range []struct{ key, value string }{{"minimum", f.min}, {"maximum", f.max}} {
			if n, err := strconv.Atoi(limit.value); err == nil {
				one = append(one, member{limit.key, n})
			}
		}
		if f.doc != "" {
			one = append(one, member{"description", f.doc})
		}
		if f.needed {
			required = append(required, f.name)
		}
		props = append(props, member{f.name, one})
	}
	out := object{{"type", "object"}, {"additionalProperties", false}}
	if len(required) > 0 {
		out = append(out, member{"required", required})
	}
	return append(out, member{"properties", props})
}

// of returns what is said of a value of the type.
func (s *schemas) of(t reflect.Type) object {
	switch {
	case t.Kind() == reflect.Pointer:
		return s.of(t.Elem())
	case t == reflect.TypeFor[estate.Bytes]():
		return object{{"oneOf", []object{
			{{"type", "string"}, {"pattern", "^[0-9]+(Ki|Mi|Gi|Ti)?$"}},
			{{"type", "integer"}, {"minimum", 0}},
		}}}
	case t == reflect.TypeFor[estate.Digest]():
		return object{{"type", "string"}, {"pattern", "^sha256:[0-9a-f]{64}$"}}
	case t == reflect.TypeFor[estate.Share]():
		return object{{"type", "string"}, {"pattern", `^[0-9]+(\.[0-9]{1,4})?%$`}}
	case t == reflect.TypeFor[netip.Addr]():
		return object{{"type", "string"}, {"examples", []string{"10.77.1.2"}}}
	case isTime(t):
		return object{{"type", "string"}, {"format", "date-time"}}
	case isText(t):
		return object{{"type", "string"}}
	}
	switch t.Kind() {
	case reflect.Struct:
		return s.ref(t)
	case reflect.Slice:
		return object{{"type", "array"}, {"items", s.of(t.Elem())}}
	case reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", s.of(t.Elem())}}
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.String:
		return object{{"type", "string"}}
	case reflect.Float64:
		return object{{"type", "number"}}
	}
	return object{{"type", "integer"}}
}

// ref defines a struct once and points to it.
func (s *schemas) ref(t reflect.Type) object {
	to := object{{"$ref", "#/$defs/" + t.Name()}}
	for _, d := range s.defs {
		if d.name == t.Name() {
			return to
		}
	}
	at := len(s.defs)
	s.defs = append(s.defs, member{t.Name(), nil})
	s.defs[at].value = s.fields(t, "")
	return to
}
