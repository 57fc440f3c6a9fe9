// Package slotest holds what service levels are proven against: a real trace,
// counting by hand, and the averages of ratios that other tools keep.
package slotest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"math"
	"strconv"
	"time"
)

//go:embed testdata/worldcup98/requests-per-minute.gz
var packed []byte

// Minute is what happened in one minute.
type Minute struct {
	Total, Bad int64
	Heard      bool // the log has the minute
}

// Trace is minutes one after another.
type Trace struct {
	Begin   time.Time
	Minutes []Minute
}

// WorldCup returns the requests of each minute to the web site of the 1998 World
// Cup, without errors: 125,310 minutes, 10 of which the log lacks, and
// 1,352,804,107 requests. Origin and terms: testdata/worldcup98/README.
func WorldCup() (Trace, error) {
	t := Trace{Begin: time.Date(1998, 4, 30, 21, 30, 0, 0, time.UTC)}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return t, fmt.Errorf("unpack the trace: %w", err)
	}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		if lines.Text() == "" {
			t.Minutes = append(t.Minutes, Minute{})
			continue
		}
		n, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			return t, fmt.Errorf("read the trace: %w", err)
		}
		t.Minutes = append(t.Minutes, Minute{Total: n, Heard: true})
	}
	return t, lines.Err()
}

// At returns when the minute with the index begins.
func (t Trace) At(i int) time.Time { return t.Begin.Add(time.Duration(i) * time.Minute) }

// Part returns the minutes from from to before to as a trace of their own.
func (t Trace) Part(from, to time.Time) Trace {
	i, j := int(from.Sub(t.Begin)/time.Minute), int(to.Sub(t.Begin)/time.Minute)
	return Trace{from, append([]Minute(nil), t.Minutes[i:j]...)}
}

// Fail makes every request of n minutes from the index on bad.
func (t Trace) Fail(i, n int) {
	for ; n > 0 && i < len(t.Minutes); i, n = i+1, n-1 {
		t.Minutes[i].Bad = t.Minutes[i].Total
	}
}

// Sprinkle makes one request in every so many bad, where it falls.
func (t Trace) Sprinkle(every int64) {
	var n int64
	for i := range t.Minutes {
		m := &t.Minutes[i]
		n += m.Total
		m.Bad = max(m.Bad, n/every)
		n %= every
		m.Bad = min(m.Bad, m.Total)
	}
}

// Hours returns the indices at which the quietest and the busiest whole hour
// since the beginning start.
func (t Trace) Hours() (quietest, busiest int) {
	least, most := int64(math.MaxInt64), int64(-1)
	for i := 0; i+60 <= len(t.Minutes); i += 60 {
		_, n := t.Sum(i, i+60)
		if n < least {
			least, quietest = n, i
		}
		if n > most {
			most, busiest = n, i
		}
	}
	return quietest, busiest
}

// Sum counts by hand: bad and all requests of the minutes [i, j) that there are.
func (t Trace) Sum(i, j int) (bad, total int64) {
	for _, m := range t.Minutes[max(0, i):max(0, min(j, len(t.Minutes)))] {
		bad += m.Bad
		total += m.Total
	}
	return bad, total
}

// Averages is the error ratio over a long window as Sloth's optimised recording
// rule has it: the mean, without weights, of the five-minute ratios that were
// recorded each minute (sum_over_time / count_over_time in its
// optimizedSLIRecordGenerator, v0.16). A ratio of nothing is no number there and
// spoils the mean; here it is left out, to the rule's favour.
type Averages struct {
	sums   []float64
	counts []int
}

// Averages records the ratios of the trace.
func (t Trace) Averages() Averages {
	a := Averages{make([]float64, len(t.Minutes)+1), make([]int, len(t.Minutes)+1)}
	for i := range t.Minutes {
		a.sums[i+1], a.counts[i+1] = a.sums[i], a.counts[i]
		if bad, total := t.Sum(i-4, i+1); total > 0 {
			a.sums[i+1] += float64(bad) / float64(total)
			a.counts[i+1]++
		}
	}
	return a
}

// Ratio returns the error ratio that the rule reports for the minutes [i, j).
func (a Averages) Ratio(i, j int) float64 {
	i = max(0, i)
	if a.counts[j] == a.counts[i] {
		return 0
	}
	return (a.sums[j] - a.sums[i]) / float64(a.counts[j]-a.counts[i])
}
