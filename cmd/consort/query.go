package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
)

func newQuery(c *cli) *cobra.Command {
	var span, step time.Duration
	cmd := &cobra.Command{
		Use:   "query EXPR",
		Short: "Ask in PromQL for what was measured",
		Long: `Ask in PromQL for what was measured: waits of those who connect, requests of
services, seats, machines, and what programs pushed. Administrators and auditors may.`,
		Example: `  consort query 'sum by (power) (consort_machines)'
  consort query 'histogram_quantile(0.95, rate(http_server_request_duration_seconds_bucket[5m]))'
  consort query consort_pool_queue --over 1h --step 1m`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if span < 0 || span > 0 && step <= 0 {
				return usage{errors.New("give --over and --step as spans, as 1h and 1m")}
			}
			return c.query(cmd.Context(), args[0], span, step)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&span, "over", 0, "what held in this time until now, as 1h, in place of what holds now")
	f.DurationVar(&step, "step", time.Minute, "of --over: time between two values")
	return cmd
}

// query shows the series in the order of their labels.
func (c *cli) query(ctx context.Context, text string, span, step time.Duration) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	got, err := client.Query(ctx, text, time.Now(), span, step)
	if err != nil {
		return err
	}
	if len(got.Data.Series) == 0 {
		c.note("nothing was measured that fits")
		return nil
	}
	slices.SortFunc(got.Data.Series, func(a, b api.AnswerSeries) int { return strings.Compare(seriesName(a), seriesName(b)) })
	var rows [][]string
	for _, s := range got.Data.Series {
		if s.Point != nil {
			rows = append(rows, []string{seriesName(s), fmt.Sprint(s.Point[1])})
		}
		for _, p := range s.Points {
			at, _ := p[0].(float64) // what is no number is shown as 1970
			rows = append(rows, []string{seriesName(s), clock(time.UnixMilli(int64(at * 1000))), fmt.Sprint(p[1])})
		}
	}
	return writeRows(c.out, rows)
}

// seriesName writes a series as PromQL does.
func seriesName(s api.AnswerSeries) string {
	name, labels := s.Labels["__name__"], []string{}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		if k != "__name__" {
			labels = append(labels, fmt.Sprintf("%s=%q", k, s.Labels[k]))
		}
	}
	return name + "{" + strings.Join(labels, ",") + "}"
}
