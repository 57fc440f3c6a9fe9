package rpc

import (
	"fmt"
	"net/http"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// largestSet is how many objects one apply may hold; an etcd transaction has
// at most 128 writes unless told otherwise.
const largestSet = 120

// apply makes a set of objects as given, all of it or nothing.
func (c *call) apply() error {
	var req api.ApplyRequest
	if err := c.message(&req); err != nil {
		return err
	}
	if len(req.Objects) > largestSet {
		return fault.Invalid.Errorf("apply: %d objects are more than the %d that fit into one transaction; apply them in parts", len(req.Objects), largestSet)
	}
	dry := req.DryRun || c.dryRun()
	for try := 0; ; try++ {
		s := newSet(c)
		if err := s.take(req); err != nil {
			return err
		}
		if err := s.check(); err != nil {
			return err
		}
		result, err := s.result()
		if err != nil {
			return err
		}
		if dry {
			return c.reply(http.StatusOK, result)
		}
		err = s.commit()
		if err == nil {
			for i, m := range s.members {
				result.Results[i].Version = m.next.Header().Metadata.Version
			}
			return c.reply(http.StatusOK, result)
		}
		if k := fault.KindOf(err); k != fault.Conflict && k != fault.Exists || try >= 20 {
			return err
		}
	}
}

// take reads the objects of the request and what is stored of them.
func (s *set) take(req api.ApplyRequest) error {
	for i, raw := range req.Objects {
		at := fmt.Sprintf("objects[%d]", i)
		given, ps := readObject(raw, at)
		if len(ps) > 0 {
			s.broken = append(s.broken, ps...)
			continue
		}
		ref := given.Header().Ref()
		if info, _ := estate.KindNamed(string(ref.Kind)); estate.NameProblem(ref.Name) != "" || info.Global != (ref.Project == "") {
			for _, p := range estate.Check(given) {
				s.wrong(at, p.Path, p.Text)
			}
			continue
		}
		if err := s.takeOne(given, at); err != nil {
			return err
		}
	}
	return nil
}

func (s *set) takeOne(given estate.Resource, at string) error {
	stored, err := s.c.stored(given.Header().Ref())
	if err != nil {
		return err
	}
	var next estate.Resource
	if stored == nil {
		next, err = fresh(given)
	} else if next, err = clone(stored); err == nil {
		err = replaceSpec(next, given)
	}
	if ps := api.Problems(err); len(ps) > 0 {
		for _, p := range ps {
			s.wrong(at, p.Path, p.Text)
		}
		return nil
	}
	if err != nil {
		return err
	}
	return s.add(next, stored, at)
}

// result says what the set changes.
func (s *set) result() (*api.ApplyResult, error) {
	out := &api.ApplyResult{Results: make([]api.Applied, len(s.members))}
	for i, m := range s.members {
		a := api.Applied{Ref: m.next.Header().Ref(), Change: api.Created}
		var was any = none{}
		if m.stored != nil {
			a.Change, a.Version = api.Unchanged, m.stored.Header().Metadata.Version
			var err error
			if was, err = wanted(m.stored); err != nil {
				return nil, err
			}
		}
		is, err := wanted(m.next)
		if err != nil {
			return nil, err
		}
		if m.stored == nil {
			was = map[string]any{}
		}
		a.Diff = difference("", was, is)
		if m.stored != nil && len(a.Diff) > 0 {
			a.Change = api.Changed
		}
		out.Results[i] = a
	}
	return out, nil
}

// wanted returns the part of an object that people write.
func wanted(r estate.Resource) (any, error) {
	t, err := tree(r)
	if err != nil {
		return nil, fault.Internal.Errorf("compare %s: %w", r.Header().Ref(), err)
	}
	m := t.(map[string]any)
	out := map[string]any{"spec": m["spec"]}
	if meta, ok := m["metadata"].(map[string]any); ok && meta["labels"] != nil {
		out["metadata"] = map[string]any{"labels": meta["labels"]}
	}
	return out, nil
}
