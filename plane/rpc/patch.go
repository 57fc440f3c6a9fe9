package rpc

import (
	"encoding/json"
	"fmt"
	"reflect"

	"consort.dev/consort/api"
)

// merge returns target changed by the merge patch, as RFC 7396 says.
func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
			continue
		}
		t[k] = merge(t[k], v)
	}
	return t
}

// tree returns v as JSON values.
func tree(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return decodeAny(data)
}

// difference lists the fields in which two JSON values differ, in order.
func difference(path string, was, is any) []api.Difference {
	if reflect.DeepEqual(was, is) {
		return nil
	}
	if w, ok := was.(map[string]any); ok {
		if i, ok := is.(map[string]any); ok {
			return differentFields(path, w, i)
		}
	}
	if w, ok := was.([]any); ok {
		if i, ok := is.([]any); ok {
			return differentItems(path, w, i)
		}
	}
	return []api.Difference{{Path: path, Was: encode(was), Is: encode(is)}}
}

func differentFields(path string, was, is map[string]any) []api.Difference {
	all := map[string]bool{}
	for k := range was {
		all[k] = true
	}
	for k := range is {
		all[k] = true
	}
	var ds []api.Difference
	for _, k := range sortedKeys(all) {
		w, i := absent(was, k), absent(is, k)
		ds = append(ds, difference(join(path, k), w, i)...)
	}
	return ds
}

// none stands for a field that is not there.
type none struct{}

func absent(m map[string]any, k string) any {
	if v, ok := m[k]; ok {
		return v
	}
	return none{}
}

func differentItems(path string, was, is []any) []api.Difference {
	var ds []api.Difference
	for i := range max(len(was), len(is)) {
		var w, n any = none{}, none{}
		if i < len(was) {
			w = was[i]
		}
		if i < len(is) {
			n = is[i]
		}
		ds = append(ds, difference(fmt.Sprintf("%s[%d]", path, i), w, n)...)
	}
	return ds
}

func encode(v any) json.RawMessage {
	if _, ok := v.(none); ok {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil // it came from JSON
	}
	return data
}
