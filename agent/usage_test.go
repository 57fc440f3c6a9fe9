package agent_test

import (
	"encoding/json"
	"testing"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
)

func TestAnAgentTellsWhatItsMachinesUse(t *testing.T) {
	h := newHouse(t)
	h.employ()
	m := h.order(nil)
	h.running()
	usage := func() []api.MachineUsage {
		h.until("the agent listens", func() bool { return h.calls.Listening("here") })
		conn, err := h.calls.Dial(t.Context(), "here", api.Call{Verb: api.CallUsage})
		h.must(err)
		defer conn.Close()
		var reply api.UsageReply
		h.must(json.NewDecoder(conn).Decode(&reply))
		return reply.Machines
	}
	all := usage()
	if len(all) != 1 || all[0].Machine != m.Ref() || all[0].CPU <= 0 || all[0].Memory != int64(m.Spec.Hardware.Memory) {
		t.Errorf("%+v, want a machine with all of its memory that has used its processors", all)
	}
	h.want(func(s *estate.MachineSpec) { s.Power = estate.Off })
	h.until("it is off", func() bool { return h.status().Power == estate.Off })
	if all := usage(); len(all) != 0 {
		t.Errorf("%+v of a machine that is off", all)
	}
}
