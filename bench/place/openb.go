package main

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"consort.dev/consort/packing"
)

// mixes are those of the paper's figures, in their order.
var mixes = []string{
	"default", "cpu050", "cpu100", "cpu200", "cpu250", "gpushare40", "gpushare60", "gpushare80", "gpushare100",
	"gpuspec10", "gpuspec20", "gpuspec25", "gpuspec33", "multigpu20", "multigpu30", "multigpu40", "multigpu50",
}

// The protocol: every mix is shuffled and grown to 1.3 times the GPUs there are,
// with the seeds 42 to 51.
const (
	firstSeed = 42
	seeds     = 10
	growTo    = 1.3
	// popular is the part of the tasks whose kinds are expected, as in the
	// paper: rare kinds are left out.
	popular = 0.95
)

// trace is the hosts and tasks of one mix.
type trace struct {
	hosts []packing.Host
	tasks []packing.Demand
	gpus  int // thousandths, of all hosts
}

// rows reads a gzipped CSV with a header; at returns a field by its column.
func rows(path string, row func(at func(column string) string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	all, err := csv.NewReader(z).ReadAll()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	column := map[string]int{}
	for i, name := range all[0] {
		column[name] = i
	}
	for n, r := range all[1:] {
		at := func(name string) string {
			if i, ok := column[name]; ok {
				return r[i]
			}
			return ""
		}
		if err := row(at); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n+2, err)
		}
	}
	return nil
}

// numbers reads some columns as integers; an absent one is 0.
func numbers(at func(string) string, columns ...string) ([]int, error) {
	out := make([]int, len(columns))
	for i, c := range columns {
		if at(c) == "" {
			continue
		}
		n, err := strconv.Atoi(at(c))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		out[i] = n
	}
	return out, nil
}

func readTrace(dir, mix string) (*trace, error) {
	t := &trace{}
	err := rows(filepath.Join(dir, "openb_node_list_gpu_node.csv.gz"), func(at func(string) string) error {
		n, err := numbers(at, "cpu_milli", "memory_mib", "gpu")
		if err != nil {
			return err
		}
		t.hosts = append(t.hosts, packing.Host{
			Name: at("sn"), Has: packing.Amounts{int64(n[0]), int64(n[1]), packing.Unbounded}, Devices: n[2],
			Labels: map[string]string{"model": at("model")},
		})
		t.gpus += n[2] * packing.Whole
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, rows(filepath.Join(dir, "openb_pod_list_"+mix+".csv.gz"), func(at func(string) string) error {
		n, err := numbers(at, "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
		if err != nil {
			return err
		}
		d := packing.Demand{Need: packing.Amounts{int64(n[0]), int64(n[1]), 0}, Devices: n[2]}
		if n[2] == 1 && n[3] < packing.Whole {
			d.Devices, d.Share = 0, n[3]
		}
		if spec := at("gpu_spec"); spec != "" {
			d.Labels = []packing.Label{{Key: "model", Any: strings.Split(spec, "|")}}
		}
		t.tasks = append(t.tasks, d)
		return nil
	})
}

// gpus returns how much of the GPUs a demand takes, in thousandths.
func gpus(d packing.Demand) int { return d.Devices*packing.Whole + d.Share }

// arrivals are the tasks in the order of a seed: shuffled, then as many again,
// drawn at random, as bring the demand to growTo; or fewer, where there are more.
func (t *trace) arrivals(seed int64) []packing.Demand {
	r := rand.New(rand.NewSource(seed))
	tasks := slices.Clone(t.tasks)
	r.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
	sum, limit := 0, int(growTo*float64(t.gpus))
	for _, d := range tasks {
		sum += gpus(d)
	}
	for sum > limit {
		i := r.Intn(len(tasks))
		sum -= gpus(tasks[i])
		tasks = slices.Delete(tasks, i, i+1)
	}
	for {
		d := t.tasks[r.Intn(len(t.tasks))]
		if sum += gpus(d); sum > limit {
			return tasks
		}
		tasks = append(tasks, d)
	}
}

// expected are the popular kinds of task.
func (t *trace) expected() []packing.Expected {
	count, kinds := map[string]*packing.Expected{}, []*packing.Expected{}
	for _, d := range t.tasks {
		key := fmt.Sprint(d)
		if count[key] == nil {
			count[key] = &packing.Expected{Demand: d}
			kinds = append(kinds, count[key])
		}
		count[key].Weight++
	}
	slices.SortStableFunc(kinds, func(a, b *packing.Expected) int { return int(b.Weight - a.Weight) })
	var out []packing.Expected
	sum := 0.0
	for _, k := range kinds {
		if sum >= popular*float64(len(t.tasks)) {
			break
		}
		out, sum = append(out, *k), sum+k.Weight
	}
	return out
}

// placer is a policy: it puts what arrives somewhere, or not.
type placer interface {
	place(d packing.Demand) bool
}

// allocated has everything arrive and returns what percentage of the GPUs is
// allocated when what arrived comes to 100 % of them, to the nearest percent as
// the authors count it.
func (t *trace) allocated(p placer, arrivals []packing.Demand) float64 {
	arrived, used, sum, n := 0, 0, 0.0, 0
	for _, d := range arrivals {
		arrived += gpus(d)
		if p.place(d) {
			used += gpus(d)
		}
		if percent := math.RoundToEven(100 * float64(arrived) / float64(t.gpus)); percent == 100 {
			sum, n = sum+100*float64(used)/float64(t.gpus), n+1
		} else if percent > 100 {
			break
		}
	}
	return sum / float64(max(1, n))
}

// ours is the product's packer.
type ours struct {
	cluster  *packing.Cluster
	flavours map[string]*packing.Flavour
	n        int
}

func (o *ours) place(d packing.Demand) bool {
	key := fmt.Sprint(d)
	f := o.flavours[key]
	if f == nil {
		f = o.cluster.Flavour(d)
		o.flavours[key] = f
	}
	o.n++
	_, ok := o.cluster.Place(f, packing.Item{Name: strconv.Itoa(o.n)})
	return ok
}

func (t *trace) ours(o packing.Options) (*ours, error) {
	o.Mixed = true
	c := packing.New(o)
	for _, h := range t.hosts {
		if err := c.SetHost(h); err != nil {
			return nil, err
		}
	}
	c.Expect(t.expected())
	return &ours{c, map[string]*packing.Flavour{}, 0}, nil
}

// published returns the authors' percentage at 100 % by seed, for a policy and mix.
func published(dir, policy, mix string) ([]float64, error) {
	var out []float64
	err := rows(filepath.Join(dir, "expected_analysis_allo_discrete.csv.gz"), func(at func(string) string) error {
		if at("workload") != "openb_pod_list_"+mix || !strings.HasSuffix(at("sc_policy"), "-"+policy) {
			return nil
		}
		v, err := strconv.ParseFloat(at("100"), 64)
		out = append(out, v)
		return err
	})
	if err == nil && len(out) != seeds {
		err = fmt.Errorf("%d published results of %s on %s, want %d", len(out), policy, mix, seeds)
	}
	return out, err
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}
