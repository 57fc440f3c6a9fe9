// Package embedded keeps measurements in Prometheus's own store, in this
// process and under one directory, and answers with its own PromQL.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"consort.dev/consort/fault"
	"consort.dev/consort/plane/metrics"
)

// Options say where and for how long.
type Options struct {
	Dir  string        // of nothing else
	Keep time.Duration // 15 days when 0, as Prometheus does
	Log  *slog.Logger
}

const (
	usualKeep = 15 * 24 * time.Hour
	// late is how much older than the newest of its series a sample may be: what
	// is pushed comes in batches and again.
	late = 10 * time.Minute
	// Prometheus's own limits of one question.
	mostSamples = 50_000_000
	mostTime    = 2 * time.Minute
	lookBack    = 5 * time.Minute
	subStep     = time.Minute // of a subquery that names none
)

// Store is a metrics.Store.
type Store struct {
	db     *tsdb.DB
	engine *promql.Engine
}

var _ metrics.Store = (*Store)(nil)

// Open opens the store of a directory, made when it is missing. One process at
// a time may have it.
func Open(o Options) (*Store, error) {
	if o.Keep == 0 {
		o.Keep = usualKeep
	}
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = o.Keep.Milliseconds()
	opts.OutOfOrderTimeWindow = late.Milliseconds()
	db, err := tsdb.Open(o.Dir, o.Log, nil, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("open the measurements in %s: %w", o.Dir, err)
	}
	return &Store{db, promql.NewEngine(promql.EngineOpts{
		Logger: o.Log, MaxSamples: mostSamples, Timeout: mostTime, LookbackDelta: lookBack,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: parser.NewParser(parser.Options{}),
		NoStepSubqueryIntervalFn: func(int64) int64 { return subStep.Milliseconds() },
	})}, nil
}

// Close keeps what is there and lets the directory go.
func (s *Store) Close() error { return errors.Join(s.engine.Close(), s.db.Close()) }

// Append implements metrics.Store.
func (s *Store) Append(ctx context.Context, samples []metrics.Sample) error {
	to := s.db.Appender(ctx)
	refused := 0
	var why error
	for _, one := range samples {
		_, err := to.Append(0, labels.FromMap(one.Labels), timestamp.FromTime(one.At), one.Value)
		switch {
		case errors.Is(err, storage.ErrDuplicateSampleForTimestamp), errors.Is(err, storage.ErrOutOfOrderSample),
			errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, tsdb.ErrInvalidSample):
			refused, why = refused+1, err
		case err != nil:
			return errors.Join(fmt.Errorf("keep measurements: %w", err), to.Rollback())
		}
	}
	if err := to.Commit(); err != nil {
		return fmt.Errorf("keep measurements: %w", err)
	}
	if refused > 0 {
		return fault.Invalid.Errorf("keep measurements: %d of %d were left out: %w", refused, len(samples), why)
	}
	return nil
}

// Query implements metrics.Source.
func (s *Store) Query(ctx context.Context, text string, at time.Time) ([]metrics.Series, error) {
	q, err := s.engine.NewInstantQuery(ctx, s.db, nil, text, at)
	return answer(ctx, q, err)
}

// QueryRange implements metrics.Source.
func (s *Store) QueryRange(ctx context.Context, text string, over metrics.Range) ([]metrics.Series, error) {
	if err := over.Check(); err != nil {
		return nil, err
	}
	q, err := s.engine.NewRangeQuery(ctx, s.db, nil, text, over.From, over.To, over.Step)
	return answer(ctx, q, err)
}

// answer carries a question out. Its series are copied: those of the engine are
// used again.
func answer(ctx context.Context, q promql.Query, err error) ([]metrics.Series, error) {
	if err != nil {
		return nil, fault.Invalid.Errorf("ask for measurements: %w", err)
	}
	defer q.Close()
	got := q.Exec(ctx)
	var storing promql.ErrStorage
	switch {
	case got.Err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(got.Err, &storing):
		return nil, fmt.Errorf("ask for measurements: %w", got.Err)
	default:
		return nil, fault.Invalid.Errorf("ask for measurements: %w", got.Err)
	}
	switch v := got.Value.(type) {
	case promql.Scalar:
		return []metrics.Series{{Labels: metrics.Labels{}, Points: []metrics.Point{{At: timestamp.Time(v.T), Value: v.V}}}}, nil
	case promql.Vector:
		all := make([]metrics.Series, 0, len(v))
		for _, one := range v {
			if one.H != nil {
				return nil, nativeHistogram(one.Metric)
			}
			all = append(all, metrics.Series{Labels: one.Metric.Map(), Points: []metrics.Point{{At: timestamp.Time(one.T), Value: one.F}}})
		}
		return all, nil
	case promql.Matrix:
		all := make([]metrics.Series, 0, len(v))
		for _, one := range v {
			if len(one.Histograms) > 0 {
				return nil, nativeHistogram(one.Metric)
			}
			series := metrics.Series{Labels: one.Metric.Map(), Points: make([]metrics.Point, 0, len(one.Floats))}
			for _, p := range one.Floats {
				series.Points = append(series.Points, metrics.Point{At: timestamp.Time(p.T), Value: p.F})
			}
			all = append(all, series)
		}
		return all, nil
	}
	return nil, fault.Invalid.Errorf("ask for measurements: the answer is a %s; ask for numbers", got.Value.Type())
}

func nativeHistogram(of labels.Labels) error {
	return fault.Unsupported.Errorf("ask for measurements: %s is a native histogram; ask for one of its quantiles", of)
}
