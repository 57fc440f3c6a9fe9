package move

import (
	"context"
	"errors"
	"time"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
)

// carryLive has the machine go over while it runs. Until it is placed at the
// target no agent turns it on or off, and a lost reply is resolved by asking
// both hosts where it runs.
func (j *journey) carryLive(ctx context.Context) (time.Duration, error) {
	if !j.did(stepStop) {
		return 0, j.learnDisks(ctx, stepStop)
	}
	if !j.did(stepPrepare) {
		if err := j.enter(ctx, stepPrepare); err != nil {
			return 0, err
		}
		return 0, j.leave(ctx, stepPrepare)
	}
	if j.index(stepDepart) >= 0 {
		runs, power, err := j.whereabouts(ctx)
		switch {
		case err != nil:
			return 0, err
		case runs == j.order.To:
			return 0, j.place(ctx)
		case power == estate.Off: // and nobody turns it on before this move has ended
			return 0, j.fail(ctx, "it stopped running before it had gone over")
		}
	}
	awaited, err := j.ask(ctx, j.order.To, api.CallArrive, api.OnMove{Disks: j.sizes()})
	if err != nil {
		return 0, err
	}
	if err := j.enter(ctx, stepDepart); err != nil {
		return 0, err
	}
	if _, err := j.ask(ctx, j.order.From, api.CallDepart, api.OnMove{At: awaited.At}); err != nil {
		if errors.Is(err, fault.OutcomeUnknown) {
			return j.times.Again, nil // the next look asks where it is
		}
		return 0, err
	}
	return 0, j.place(ctx)
}

// whereabouts returns where the machine is, and its power there: the target when
// it runs there, otherwise the source, when that has it. Both must answer.
func (j *journey) whereabouts(ctx context.Context) (string, estate.Power, error) {
	there, err := j.ask(ctx, j.order.To, api.CallWhere, api.OnMove{})
	if err != nil {
		return "", "", err
	}
	here, err := j.ask(ctx, j.order.From, api.CallWhere, api.OnMove{})
	if err != nil {
		return "", "", err
	}
	switch {
	case there.Here && there.Power == estate.On && !(here.Here && here.Power != estate.Off):
		return j.order.To, there.Power, nil
	case here.Here && !(there.Here && there.Power != estate.Off):
		return j.order.From, here.Power, nil
	}
	return "", "", refused{fault.Unavailable.Errorf("it is not clear where the machine runs: %s says %s, %s says %s",
		j.order.From, here.Power, j.order.To, there.Power)}
}
