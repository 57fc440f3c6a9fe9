package manifest

import (
	"bytes"
	"encoding"
	"reflect"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/manifest/openslo"
)

// Marshal writes an object as YAML that Load reads back: fields in the order of
// the words, an empty status left out.
func Marshal(r estate.Resource) ([]byte, error) {
	n, err := node(reflect.ValueOf(r).Elem())
	if err != nil {
		return nil, err
	}
	return write(n)
}

// MarshalValue writes any value made of the words, as a plan or a part of a
// status, the way Marshal writes an object.
func MarshalValue(v any) ([]byte, error) {
	n, err := node(reflect.ValueOf(v))
	if err != nil {
		return nil, err
	}
	return write(n)
}

func write(n *yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, fault.Internal.Errorf("write yaml: %w", err)
	}
	return out.Bytes(), nil
}

func node(v reflect.Value) (*yaml.Node, error) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
		}
		v = v.Elem()
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			return nil, fault.Invalid.Errorf("write yaml: %w", err)
		}
		return textNode(string(text)), nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return structNode(v)
	case reflect.Slice:
		if texts, is := v.Interface().(openslo.Texts); is && len(texts) == 1 {
			return textNode(texts[0]), nil
		}
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.Len() {
			item, err := node(v.Index(i))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		flow(n)
		return n, nil
	case reflect.Map:
		return mapNode(v)
	case reflect.String:
		return textNode(v.String()), nil
	case reflect.Bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}, nil
	case reflect.Int, reflect.Int64, reflect.Int32:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(v.Int(), 10)}, nil
	case reflect.Float64:
		text, tag := strconv.FormatFloat(v.Float(), 'g', -1, 64), "!!float"
		if decimal.MatchString(text) {
			tag = "!!int" // so that it is written plainly
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}, nil
	}
	return nil, fault.Internal.Errorf("write yaml: %s has no form in it", v.Type())
}

func structNode(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range fieldsOf(v.Type()) {
		fv := v.FieldByIndex(f.index)
		if f.omitZero && empty(fv) {
			continue
		}
		val, err := node(fv)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, textNode(f.name), val)
	}
	flow(n)
	return n, nil
}

func mapNode(v reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		val, err := node(v.MapIndex(k))
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, textNode(k.String()), val)
	}
	flow(n)
	return n, nil
}

// flow writes what holds nothing as [] or {}.
func flow(n *yaml.Node) {
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
}

func empty(v reflect.Value) bool {
	if k := v.Kind(); k == reflect.Slice || k == reflect.Map {
		return v.Len() == 0
	}
	return v.IsZero()
}

// textNode is text that every YAML reader takes for text: quoted where a plain
// word would mean something else to one of them.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	switch {
	case strings.Contains(s, "\n") && blockable(s):
		n.Style = yaml.LiteralStyle
	case !plain(s):
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// blockable reports whether s comes back unchanged from a literal block.
func blockable(s string) bool {
	if strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\n") || strings.ContainsAny(s, "\r\t\u0085\u2028\u2029\ufeff") {
		return false
	}
	for _, c := range s {
		if c < ' ' && c != '\n' || c >= 0x7f && c < 0xa0 || c >= 0xfffe {
			return false
		}
	}
	for line := range strings.Lines(s) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), " ") {
			return false
		}
	}
	return true
}

// plain reports whether s may stand without quotes.
func plain(s string) bool {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./: ,+=()'"
	if s == "" || s != strings.TrimSpace(s) || strings.Trim(s, safe) != "" {
		return false
	}
	if strings.Contains(s, ": ") || strings.HasSuffix(s, ":") || strings.Contains("-:,+='.", s[:1]) {
		return false
	}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "true", "false", "null":
		return false
	}
	return true // numbers: the encoder quotes what it would read as one
}
