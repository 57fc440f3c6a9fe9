package service

import (
	"testing"
	"time"

	"consort.dev/consort/estate"
)

// TestFewerAreWantedWhileOneIsReplaced: the one to be replaced goes, and none
// that is well.
func TestFewerAreWantedWhileOneIsReplaced(t *testing.T) {
	v := canary(nil)
	s := &v.service.Status
	s.Rollout, s.Wanted = nil, 2
	v.service.Spec.Scale = estate.Scale{Least: 1, Most: 4}
	s.Revisions = []estate.Revision{{Number: 1}}
	s.Replicas[2].Revision = 1
	for i := range s.Replicas {
		s.Replicas[i].Made = v.now.Add(time.Duration(i) * time.Minute)
	}
	s.Replicas[0].Replace = true // the oldest
	v.steer(nil)
	v.steer(nil)
	for _, r := range s.Replicas {
		if leaves := r.State == estate.ReplicaLeaving; leaves != (r.Machine == "old-1") {
			t.Errorf("%s is %s; want that old-1 leaves, and no other", r.Machine, r.State)
		}
	}
	if len(s.Replicas) != 3 {
		t.Errorf("%d replicas, want no other in place of old-1: %+v", len(s.Replicas), s.Replicas)
	}
}
