package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/hypervisor/driver"
)

// surveys are promises of driver.Surveyor.
var surveys = []promise{
	{name: "SurveyHasTheMachinesOfOthers", needs: estate.CanSurvey, keeps: surveyHasOthers},
	{name: "SurveyHasNoneOfOurs", needs: estate.CanSurvey, keeps: surveyHasNoneOfOurs},
	{name: "SurveyIsInOrderOfID", needs: estate.CanSurvey, keeps: surveyIsInOrder},
	{name: "SurveyChangesNothing", needs: estate.CanSurvey, keeps: surveyChangesNothing},
	{name: "ListHasNoneOfOthers", needs: estate.CanSurvey, keeps: listHasNoneOfOthers},
	{name: "AdoptMakesItOurs", needs: estate.CanSurvey, keeps: adoptMakesItOurs},
	{name: "AdoptTakesItFromTheOthers", needs: estate.CanSurvey, keeps: adoptTakesItFromOthers},
	{name: "AdoptLeavesThePower", needs: estate.CanSurvey, keeps: adoptLeavesThePower},
	{name: "AdoptTwiceIsOnce", needs: estate.CanSurvey, keeps: adoptTwiceIsOnce},
	{name: "AdoptUnknownIsNotFound", asks: true, needs: estate.CanSurvey, keeps: adoptUnknownIsNotFound},
	{name: "AdoptDespiteAnObstacleIsUnsupported", needs: estate.CanSurvey, keeps: adoptObstacleIsUnsupported},
	{name: "AdoptedDisksAreFiles", needs: estate.CanSurvey, keeps: adoptedDisksAreFiles},
	{name: "DeleteKeepsTheDisksOfAnAdopted", needs: estate.CanSurvey, keeps: deleteKeepsAdoptedDisks},
	{name: "AdoptedOutlivesTheProcess", needs: estate.CanSurvey, keeps: adoptedOutlivesTheProcess},
	{name: "ReleaseGivesItBack", needs: estate.CanSurvey, keeps: releaseGivesItBack},
	{name: "ReleaseOfOneNotOursIsSuccess", needs: estate.CanSurvey, keeps: releaseOfOthersIsSuccess},
	{name: "ReleaseOfOneWeDefinedIsConflict", needs: estate.CanSurvey, keeps: releaseOfDefinedIsConflict},
}

// stranger makes a machine that is not ours.
func (b Bench) stranger(ctx context.Context) (estate.MachineID, driver.Surveyor, error) {
	if b.Stranger == nil {
		return "", nil, skip("the bench makes no machines of others")
	}
	s, err := ability[driver.Surveyor](b)
	if err != nil {
		return "", nil, err
	}
	id, err := b.Stranger(ctx)
	return id, s, err
}

// adoptable makes a machine that is not ours and can be.
func (b Bench) adoptable(ctx context.Context) (estate.MachineID, driver.Surveyor, error) {
	for range 3 {
		id, s, err := b.stranger(ctx)
		if err != nil {
			return "", nil, err
		}
		if f, ok, err := found(ctx, s, id); err != nil || ok && f.Obstacle == "" {
			return id, s, err
		}
	}
	return "", nil, errors.New("no machine of others that can be adopted is found")
}

// adopted makes a machine that is not ours and adopts it. It is to be released.
func (b Bench) adopted(ctx context.Context) (estate.MachineID, driver.Surveyor, error) {
	id, s, err := b.adoptable(ctx)
	if err == nil {
		err = s.Adopt(ctx, id)
	}
	return id, s, err
}

// found returns the machine as a survey has it.
func found(ctx context.Context, s driver.Surveyor, id estate.MachineID) (estate.Found, bool, error) {
	all, err := s.Survey(ctx)
	for _, f := range all {
		if f.ID == id {
			return f, true, err
		}
	}
	return estate.Found{}, false, err
}

// listed returns the machine as the list has it.
func listed(ctx context.Context, h driver.Host, id estate.MachineID) (driver.Machine, bool, error) {
	all, err := h.List(ctx)
	for _, m := range all {
		if m.ID == id {
			return m, true, err
		}
	}
	return driver.Machine{}, false, err
}

func surveyHasOthers(ctx context.Context, b Bench) error {
	id, s, err := b.stranger(ctx)
	if err != nil {
		return err
	}
	_, ok, err := found(ctx, s, id)
	if err == nil && !ok {
		err = fmt.Errorf("machine %s of others is not found", id)
	}
	return err
}

func surveyHasNoneOfOurs(ctx context.Context, b Bench) error {
	s, err := ability[driver.Surveyor](b)
	if err != nil {
		return err
	}
	if err := b.Host.Define(ctx, b.def(first)); err != nil {
		return err
	}
	_, ok, err := found(ctx, s, first)
	if err == nil && ok {
		err = errors.New("a machine of ours is found among those of others")
	}
	return err
}

func surveyIsInOrder(ctx context.Context, b Bench) error {
	var s driver.Surveyor
	for range 3 {
		var err error
		if _, s, err = b.stranger(ctx); err != nil {
			return err
		}
	}
	all, err := s.Survey(ctx)
	if err == nil && !slices.IsSortedFunc(all, func(a, b estate.Found) int { return cmp.Compare(a.ID, b.ID) }) {
		err = fmt.Errorf("Survey = %+v, which is not in order of ID", all)
	}
	return err
}

func surveyChangesNothing(ctx context.Context, b Bench) error {
	id, s, err := b.stranger(ctx)
	if err != nil {
		return err
	}
	one, _, err1 := found(ctx, s, id)
	two, _, err2 := found(ctx, s, id)
	if !reflect.DeepEqual(one, two) {
		return fmt.Errorf("Survey has %+v, then %+v", one, two)
	}
	return errors.Join(err1, err2)
}

func listHasNoneOfOthers(ctx context.Context, b Bench) error {
	id, _, err := b.stranger(ctx)
	if err != nil {
		return err
	}
	_, ok, err := listed(ctx, b.Host, id)
	if err == nil && ok {
		err = fmt.Errorf("machine %s of others is listed as ours", id)
	}
	return err
}

func adoptMakesItOurs(ctx context.Context, b Bench) error {
	id, s, err := b.adopted(ctx)
	if err != nil {
		return err
	}
	_, ok, err := listed(ctx, b.Host, id)
	if err == nil && !ok {
		err = fmt.Errorf("the adopted machine %s is not listed", id)
	}
	return errors.Join(err, s.Release(ctx, id))
}

func adoptTakesItFromOthers(ctx context.Context, b Bench) error {
	id, s, err := b.adopted(ctx)
	if err != nil {
		return err
	}
	_, ok, err := found(ctx, s, id)
	if err == nil && ok {
		err = fmt.Errorf("the adopted machine %s is still found among those of others", id)
	}
	return errors.Join(err, s.Release(ctx, id))
}

func adoptLeavesThePower(ctx context.Context, b Bench) error {
	id, s, err := b.adoptable(ctx)
	if err != nil {
		return err
	}
	before, _, err1 := found(ctx, s, id)
	err2 := s.Adopt(ctx, id)
	after, _, err3 := listed(ctx, b.Host, id)
	if before.Power != after.Power {
		err3 = errors.Join(err3, fmt.Errorf("the machine was %s and is %s once adopted", before.Power, after.Power))
	}
	return errors.Join(err1, err2, err3, s.Release(ctx, id))
}

func adoptTwiceIsOnce(ctx context.Context, b Bench) error {
	id, s, err := b.adopted(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.Adopt(ctx, id), s.Release(ctx, id))
}

func adoptUnknownIsNotFound(ctx context.Context, b Bench) error {
	s, err := ability[driver.Surveyor](b)
	if err == nil {
		err = s.Adopt(ctx, nobody)
	}
	return isKind(err, fault.NotFound)
}

// It is up to the bench whether one of its strangers has an obstacle.
func adoptObstacleIsUnsupported(ctx context.Context, b Bench) error {
	for range 3 {
		id, s, err := b.stranger(ctx)
		if err != nil {
			return err
		}
		f, _, err := found(ctx, s, id)
		if err != nil {
			return err
		}
		if f.Obstacle != "" {
			return isKind(s.Adopt(ctx, id), fault.Unsupported)
		}
	}
	return skip("no machine of others has an obstacle to adoption")
}

func adoptedDisksAreFiles(ctx context.Context, b Bench) error {
	id, s, err := b.adopted(ctx)
	if err != nil {
		return err
	}
	m, _, err := listed(ctx, b.Host, id)
	for _, d := range m.Def.Disks {
		if d.File == nil {
			err = errors.Join(err, fmt.Errorf("disk %s of the adopted machine is no file", d.Name))
		}
	}
	if len(m.Def.Disks) == 0 {
		err = errors.Join(err, errors.New("the adopted machine has no disk"))
	}
	return errors.Join(err, s.Release(ctx, id))
}

func deleteKeepsAdoptedDisks(ctx context.Context, b Bench) error {
	id, s, err := b.adopted(ctx)
	if err != nil {
		return err
	}
	m, _, err := listed(ctx, b.Host, id)
	if err != nil {
		return err
	}
	files := slices.DeleteFunc(m.Def.Disks, func(d driver.Disk) bool {
		if d.File == nil {
			return true
		}
		_, err := b.read(d.File.Path)
		return err != nil
	})
	if len(files) == 0 {
		return errors.Join(s.Release(ctx, id), skip("the disks of the adopted machine are no files that the suite can read"))
	}
	if err := b.Host.Delete(ctx, id); err != nil {
		return err
	}
	for _, d := range files {
		if _, err := b.read(d.File.Path); err != nil {
			return fmt.Errorf("disk %s of a deleted adopted machine is gone: %w", d.Name, err)
		}
	}
	return nil
}

func adoptedOutlivesTheProcess(ctx context.Context, b Bench) error {
	id, s, err := b.adopted(ctx)
	if err != nil {
		return err
	}
	h, err := b.Reopen()
	if err != nil {
		return err
	}
	_, ok, err := listed(ctx, h, id)
	if err == nil && !ok {
		err = errors.New("a new process does not list the adopted machine")
	}
	return errors.Join(err, s.Release(ctx, id))
}

func releaseGivesItBack(ctx context.Context, b Bench) error {
	id, s, err := b.adoptable(ctx)
	if err != nil {
		return err
	}
	before, _, err1 := found(ctx, s, id)
	err2 := errors.Join(s.Adopt(ctx, id), s.Release(ctx, id))
	after, _, err3 := found(ctx, s, id)
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("Survey had %+v, and %+v after adoption and release", before, after)
	}
	return errors.Join(err1, err2, err3)
}

func releaseOfOthersIsSuccess(ctx context.Context, b Bench) error {
	id, s, err := b.stranger(ctx)
	if err == nil {
		err = s.Release(ctx, id)
	}
	return err
}

func releaseOfDefinedIsConflict(ctx context.Context, b Bench) error {
	s, err := ability[driver.Surveyor](b)
	if err != nil {
		return err
	}
	return steps(b.define(ctx, first), func() error { return isKind(s.Release(ctx, first), fault.Conflict) })
}
