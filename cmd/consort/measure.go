package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"consort.dev/consort/fault"
	fronts "consort.dev/consort/front/scrape"
	"consort.dev/consort/plane/metrics"
	"consort.dev/consort/plane/metrics/census"
	"consort.dev/consort/plane/metrics/embedded"
	"consort.dev/consort/plane/metrics/otlp"
	"consort.dev/consort/plane/metrics/promapi"
	"consort.dev/consort/plane/metrics/scrape"
	machines "consort.dev/consort/plane/metrics/usage"
	"consort.dev/consort/plane/spans"
)

// flushTime is how long the last traces may take to be sent.
const flushTime = 2 * time.Second

// lookEvery is how often the process keeps what it counts, as Prometheus's own
// default would.
const lookEvery = 15 * time.Second

// openMeasurements opens what answers questions about measurements: the server
// that was named, or a store of our own.
func (p *plane) openMeasurements(o upOptions) (err error) {
	if o.prometheus != "" {
		p.source, err = promapi.New(o.prometheus, &http.Client{Timeout: time.Minute})
		return err
	}
	p.kept, err = embedded.Open(embedded.Options{Dir: filepath.Join(o.state, "metrics"), Log: p.log})
	if err == nil {
		p.source = p.kept
	}
	return err
}

// measure tells of every Connect to a collector of traces, keeps what the process
// counts, and shows it to Prometheus and takes what programs push, where they
// were named. stop sends what is left.
func (p *plane) measure(ctx context.Context, o upOptions, start func(string, func(context.Context) error)) (stop func(), err error) {
	version, _ := build()
	teller, err := spans.New(ctx, spans.Options{Store: p.store, OTLP: o.otlp, Version: version, Now: time.Now, Log: p.log})
	if err != nil {
		return nil, err
	}
	self := scrape.NewSelf(teller, fronts.New(p.fronts.Fronts), census.New(p.store), &machines.Collector{Store: p.store, Dial: p.calls.Dial})
	if p.kept != nil {
		start("keep measurements", func(ctx context.Context) error {
			return self.Keep(ctx, scrape.Keeping{To: p.kept, Every: lookEvery, With: metrics.Labels{"job": "consort"}, Now: time.Now, Log: p.log})
		})
	}
	if o.metrics != "" {
		l, err := net.Listen("tcp", o.metrics)
		if err != nil {
			return nil, fault.Unavailable.Errorf("serve measurements on %s: %w; choose another address with --metrics", o.metrics, err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", self.Handler())
		if p.kept != nil {
			mux.Handle("POST "+otlp.Path, otlp.Handler(p.kept))
		}
		start("serve measurements on "+o.metrics, serveOn(l, mux, nil))
	}
	loop := teller.Loop()
	start("loop "+loop.Name, loop.Run)
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := teller.Close(ctx); err != nil {
			p.log.Warn("traces that were left are lost", "error", err)
		}
	}, nil
}
