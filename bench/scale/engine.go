package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"consort.dev/consort/decide"
	"consort.dev/consort/estate"
)

const (
	guess        = 45 // requests/s that a machine is believed to bear at first
	mostMachines = 200
)

// engine is the product's own decide.Decide, asked as the live loop asks it.
type engine struct {
	policy decide.Policy
	state  decide.State
	leave  map[int]int // machine to the second it leaves, when its replacement serves
	trace  func(decide.Decision)
}

func newEngine(guess float64) *engine {
	return &engine{leave: map[int]int{}, policy: decide.Policy{
		Service: "shop", Level: decide.Level{Bound: bound * 1000 * time.Millisecond, Share: share},
		Scaling: decide.Replicas, Least: 1, Most: mostMachines, Guess: guess, Modes: []decide.Mode{decide.Auto},
	}}
}

func (e *engine) every() int { return 5 }

func (e *engine) decide(now int, w *world) orders {
	d, s := decide.Decide(e.policy, e.measure(now, w), e.state)
	o := orders{}
	if d.Act != decide.Wait {
		s, o.acts = s.Took(d), 1
	}
	e.state = s
	if e.trace != nil {
		e.trace(d)
	}
	switch d.Act {
	case decide.Out:
		o.more = d.To - d.From
	case decide.In:
		for _, id := range d.Gone {
			o.gone = append(o.gone, number(id))
		}
	case decide.Replace:
		o.more = 1
		e.leave[number(d.Gone[0])] = now + bootTime
	}
	for id, at := range e.leave {
		if at <= now {
			o.gone = append(o.gone, id)
			delete(e.leave, id)
		}
	}
	return o
}

func (e *engine) measure(now int, w *world) decide.Measured {
	m := decide.Measured{At: clock(now), Span: time.Duration(e.every()) * time.Second, Seen: true, Arrived: w.arrived, Boot: bootTime * time.Second,
		Quick: w.tenth(now, e.every())}
	for _, vm := range w.machines {
		did := vm.over(now, e.every())
		r := decide.Replica{ID: estate.MachineID("web-" + strconv.Itoa(vm.id)), Host: fmt.Sprintf("host-%d", vm.id%10), Domain: fmt.Sprintf("rack-%d", vm.id%5),
			Phase: decide.Ready, Answered: did.answered, Bad: did.bad, Time: time.Duration(did.time * float64(time.Second))}
		if vm.ready >= now {
			r.Phase = decide.Starting
		}
		if _, leaves := e.leave[vm.id]; leaves {
			r.Phase = decide.Leaving
		}
		m.Replicas = append(m.Replicas, r)
	}
	return m
}

func number(id estate.MachineID) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(string(id), "web-")) // ours, so a number
	return n
}
