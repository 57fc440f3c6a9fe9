package main

import (
	"bytes"
	"embed"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
)

//go:embed data/*.txt
var files embed.FS

const (
	meanRate  = 720     // requests/s every trace is scaled to: 16 machines of the first guess
	tableSize = 1 << 16 // of works
)

// trace is how many requests come in each second.
type trace struct {
	name  string
	rates []float64
	tuned bool // whether the engine's constants were chosen on it
}

// corpus is what every run draws from.
type corpus struct {
	traces []trace
	speeds []float64
	work   []float64
}

func load() (*corpus, error) {
	c := &corpus{work: works()}
	for _, t := range []struct {
		name  string
		step  int // seconds a line
		tuned bool
	}{{"diurnal", 1, true}, {"bursty", 1, true}, {"noisy", 1, true}, {"worldcup", 60, false}, {"twitter", 1, false}} {
		v, err := numbers(t.name)
		if err != nil {
			return nil, err
		}
		c.traces = append(c.traces, trace{t.name, scaled(smooth(v, t.step)), t.tuned})
	}
	var err error
	c.speeds, err = numbers("redis")
	mean := 0.0
	for _, v := range c.speeds {
		mean += v / float64(len(c.speeds))
	}
	for i := range c.speeds {
		c.speeds[i] /= mean
	}
	return c, err
}

// works are lognormal works of requests, one from each of many equal slices of
// the distribution.
func works() []float64 {
	table := make([]float64, tableSize)
	mu := math.Log(meanWork) - spread*spread/2
	for i := range table {
		u := (float64(i) + 0.5) / tableSize
		table[i] = math.Exp(mu + spread*math.Sqrt2*math.Erfinv(2*u-1))
	}
	r := rand.New(rand.NewPCG(1, 1))
	r.Shuffle(len(table), func(i, j int) { table[i], table[j] = table[j], table[i] })
	return table
}

// smooth turns one number a step into one a second, on straight lines between
// the middles of the steps.
func smooth(v []float64, step int) []float64 {
	if step == 1 {
		return v
	}
	out := make([]float64, len(v)*step)
	for t := range out {
		x := (float64(t)+0.5)/float64(step) - 0.5
		i := int(math.Floor(x))
		a, b := v[min(max(i, 0), len(v)-1)], v[min(max(i+1, 0), len(v)-1)]
		out[t] = a + (b-a)*(x-float64(i))
	}
	return out
}

// scaled gives a trace the mean rate.
func scaled(v []float64) []float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = x * meanRate * float64(len(v)) / sum
	}
	return out
}

func numbers(name string) ([]float64, error) {
	b, err := files.ReadFile("data/" + name + ".txt")
	if err != nil {
		return nil, err
	}
	var out []float64
	for _, f := range bytes.Fields(b) {
		v, err := strconv.ParseFloat(string(f), 64)
		if err != nil {
			return nil, fmt.Errorf("data/%s.txt: %w", name, err)
		}
		out = append(out, v)
	}
	return out, nil
}
