package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"consort.dev/consort/api"
	"consort.dev/consort/estate"
	"consort.dev/consort/fault"
	"consort.dev/consort/internal/atomicfile"
	"consort.dev/consort/matrix"
)

func newMatrix(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Measure hypervisors against each other",
		Long: `Runs the same guest and the same workloads on every hypervisor, and shows which is
best at what: only where the spread of the repeats leaves no doubt.`,
		Example: "  consort matrix run --image bench-guest\n  consort matrix show\n  consort matrix diff",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.matrixRun(), c.matrixShow(), c.matrixDiff())
	return cmd
}

func (c *cli) matrixRun() *cobra.Command {
	var o trialOptions
	var out string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the workloads on hypervisors, interleaved, and keep what came out",
		Long: `Runs each workload on each hypervisor, in turns, and keeps one trial for each pair.
A machine is made for it on every hypervisor and removed again. Nothing else should
load the hosts meanwhile: what does is in the spread.`,
		Example: `  consort matrix run --image bench-guest --network lan
  consort matrix run --image bench-guest --hypervisors rack-1,rack-2/pvh --workloads cpu,disk --repeats 9`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runMatrix(cmd.Context(), o, out) },
	}
	c.projectFlag(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&o.hypervisors, "hypervisors", nil, "which, as NAME or NAME/GUESTTYPE (default: all that are ready and run commands in guests)")
	f.StringSliceVar(&o.workloads, "workloads", workloadsOf, "which workloads")
	f.StringVar(&o.image, "image", "", "image of the guest")
	f.StringVar(&o.network, "network", "", "network the guest joins, for packets and tcp; none when empty")
	f.StringVar(&o.memory, "memory", "512Mi", "memory of the guest")
	f.StringVar(&o.program, "program", besideSelf("consort-bench"), "the workloads' program, for the guest")
	f.StringVar(&o.run, "name", "", "name of the run (default: the time)")
	f.IntVar(&o.repeats, "repeats", 5, "how often each runs")
	f.Float64Var(&o.seconds, "seconds", 1, "length of each part of a workload")
	f.StringVar(&out, "out", "", "write the result here too, as JSON, after each round")
	if err := cmd.MarkFlagRequired("image"); err != nil {
		panic(err) // a flag that is not there is a bug
	}
	return cmd
}

// besideSelf returns the path of a program in our own folder.
func besideSelf(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

func (c *cli) runMatrix(ctx context.Context, o trialOptions, out string) error {
	client, err := c.plane()
	if err != nil {
		return err
	}
	if o.run == "" {
		o.run = time.Now().UTC().Format("20060102-150405")
	}
	for _, w := range o.workloads {
		if !slices.Contains(workloadsOf, w) {
			return usage{fmt.Errorf("there is no workload %q; there are: %s", w, strings.Join(workloadsOf, ", "))}
		}
	}
	if len(o.hypervisors) == 0 {
		if o.hypervisors, err = measurable(ctx, client); err != nil {
			return err
		}
	}
	var last []*estate.Trial
	failed := c.trial(ctx, o, func(all []*estate.Trial) error {
		last = all
		if out == "" {
			return nil
		}
		return writeMatrix(out, matrix.Of(all))
	})
	for _, t := range last {
		if err := client.Put(context.WithoutCancel(ctx), t, api.Write{Create: true}); err != nil {
			return errors.Join(failed, err)
		}
	}
	if len(last) > 0 {
		failed = errors.Join(failed, c.showMatrix(matrix.Of(last)))
	}
	return failed
}

// measurable returns every hypervisor that is ready, once for each type of guest
// in which it runs commands.
func measurable(ctx context.Context, client *api.Client) ([]string, error) {
	all, _, err := api.List[estate.Hypervisor](ctx, client, api.Filter{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, h := range all {
		types := h.Status.GuestTypes
		if len(types) == 0 {
			types = []string{""}
		}
		for _, t := range types {
			if h.Status.State == estate.HypervisorReady && h.Status.CanFor(t, estate.CanGuest).Has {
				names = append(names, strings.TrimSuffix(h.Metadata.Name+"/"+t, "/"))
			}
		}
	}
	if len(names) == 0 {
		return nil, fault.Unavailable.Errorf("no hypervisor is ready and runs commands in guests; see: consort get hypervisors")
	}
	return names, nil
}

func (c *cli) matrixShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [RUN]", Short: "Show a run, the newest when none is named", Args: cobra.MaximumNArgs(1),
		Example: "  consort matrix show\n  consort matrix show 20261122-210000",
		RunE: func(cmd *cobra.Command, args []string) error {
			runs, err := c.runs(cmd.Context())
			if err != nil {
				return err
			}
			trials, err := runs.pick(args, 0)
			if err != nil {
				return err
			}
			return c.showMatrix(matrix.Of(trials))
		},
	}
}

func (c *cli) matrixDiff() *cobra.Command {
	return &cobra.Command{
		Use: "diff [OLD NEW]", Short: "Compare two runs, the newest two when none are named", Args: cobra.MatchAll(cobra.MaximumNArgs(2), even),
		Example: "  consort matrix diff\n  consort matrix diff 20261122-210000 20261123-090000",
		RunE: func(cmd *cobra.Command, args []string) error {
			runs, err := c.runs(cmd.Context())
			if err != nil {
				return err
			}
			var was, is []string
			if len(args) == 2 {
				was, is = args[:1], args[1:]
			}
			before, err := runs.pick(was, 1)
			if err != nil {
				return err
			}
			after, err := runs.pick(is, 0)
			if err != nil {
				return err
			}
			return c.showDiff(matrix.Diff(matrix.Of(before), matrix.Of(after)))
		},
	}
}

func even(_ *cobra.Command, args []string) error {
	if len(args) == 1 {
		return usage{errors.New("name both runs, or none")}
	}
	return nil
}

// trialsOf are the trials by run.
type trialsOf map[string][]*estate.Trial

func (c *cli) runs(ctx context.Context) (trialsOf, error) {
	client, err := c.plane()
	if err != nil {
		return nil, err
	}
	all, _, err := api.List[estate.Trial](ctx, client, api.Filter{})
	if err != nil {
		return nil, err
	}
	runs := trialsOf{}
	for _, t := range all {
		runs[t.Spec.Run] = append(runs[t.Spec.Run], t)
	}
	return runs, nil
}

// pick returns the run named, or the one that was made so many runs before the newest.
func (r trialsOf) pick(named []string, back int) ([]*estate.Trial, error) {
	names := sortedKeys(r)
	slices.SortStableFunc(names, func(a, b string) int { return r[b][0].Spec.At.Compare(r[a][0].Spec.At) })
	if len(named) > 0 {
		if t, ok := r[named[0]]; ok {
			return t, nil
		}
		return nil, fault.NotFound.Errorf("there is no run %s; there are: %s", named[0], orElse(strings.Join(names, ", "), "none"))
	}
	if back >= len(names) {
		return nil, fault.NotFound.Errorf("there are %d runs, %d needed; make one with: consort matrix run", len(names), back+1)
	}
	return r[names[back]], nil
}

func (c *cli) showMatrix(m matrix.Matrix) error {
	head := []string{"WORKLOAD", "FIGURE", "BETTER"}
	for _, col := range m.Columns {
		head = append(head, columnText(col))
	}
	rows := [][]string{head}
	for _, r := range m.Rows {
		row := []string{r.Workload, r.Figure, string(r.Better)}
		for _, cell := range r.Cells {
			row = append(row, cellText(cell))
		}
		rows = append(rows, row)
	}
	if err := writeRows(c.out, rows); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "\nMedian (least to greatest). * is best, where no repeat of another comes near: in each row by chance once in 126 with five repeats.")
	for _, col := range m.Columns {
		fmt.Fprintf(c.out, "  %s: %s, %s\n", columnText(col), orElse(col.Product, "unknown release"), orElse(col.Accelerator, "unknown accelerator"))
	}
	for _, n := range gathered(m.Notes) {
		fmt.Fprintf(c.out, "  %s, %s: %s\n", columnText(n.Column), n.Workload, n.Text)
	}
	return nil
}

// gathered returns the notes with the workloads of equal ones put together.
func gathered(notes []matrix.Note) []matrix.Note {
	var out []matrix.Note
	for _, n := range notes {
		same := func(o matrix.Note) bool { return o.Column == n.Column && o.Text == n.Text }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i].Workload += ", " + n.Workload
			continue
		}
		out = append(out, n)
	}
	return out
}

func columnText(c matrix.Column) string { return strings.TrimSuffix(c.Hypervisor+"/"+c.GuestType, "/") }

func cellText(c matrix.Cell) string {
	if !c.Measured() {
		return ""
	}
	best := ""
	if c.Best {
		best = "*"
	}
	return fmt.Sprintf("%s%s(%s..%s)", figure(c.Median), best, figure(c.Low), figure(c.High))
}

// figure writes three figures that count.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func (c *cli) showDiff(changes []matrix.Change) error {
	rows := [][]string{{"HYPERVISOR", "WORKLOAD", "FIGURE", "WAS", "IS", "VERDICT"}}
	verdicts := map[matrix.Verdict]int{}
	for _, ch := range changes {
		verdicts[ch.Verdict]++
		if ch.Verdict != matrix.Improved && ch.Verdict != matrix.Worse {
			continue
		}
		verdict := string(ch.Verdict)
		if ch.Release {
			verdict += ", another release: " + ch.Was.Column.Product + " to " + ch.Is.Column.Product
		}
		rows = append(rows, []string{
			columnText(ch.Is.Column), ch.Workload, ch.Figure, cellText(ch.Was), cellText(ch.Is), verdict,
		})
	}
	if len(rows) > 1 {
		if err := writeRows(c.out, rows); err != nil {
			return err
		}
		fmt.Fprintln(c.out)
	}
	fmt.Fprintf(c.out, "Of %d figures: %d no difference, %d better, %d worse, %d not measured in both, %d with too few repeats to say.\n",
		len(changes), verdicts[matrix.Same]+verdicts[matrix.Doubtful], verdicts[matrix.Improved], verdicts[matrix.Worse], verdicts[matrix.Missing], verdicts[matrix.TooFew])
	if n := verdicts[matrix.Doubtful]; n > 0 {
		fmt.Fprintf(c.out, "%d of those without a difference lie apart, as up to %.1f do by chance among so many; compare again before you believe them: %s\n",
			n, matrix.ByChance(changes), strings.Join(doubtful(changes), ", "))
	}
	fmt.Fprintf(c.out, "That any figure at all is called better or worse and is not has a chance of at most %g.\n", matrix.Sure)
	return nil
}

func doubtful(changes []matrix.Change) []string {
	var all []string
	for _, ch := range changes {
		if ch.Verdict == matrix.Doubtful {
			all = append(all, fmt.Sprintf("%s %s %s (%s to %s)", columnText(ch.Is.Column), ch.Workload, ch.Figure, figure(ch.Was.Median), figure(ch.Is.Median)))
		}
	}
	return all
}

// writeMatrix writes the run in the form that all benchmarks have.
func writeMatrix(path string, m matrix.Matrix) error {
	metrics, samples, notes := map[string]float64{}, map[string][]float64{}, []string{}
	for _, n := range m.Notes {
		notes = append(notes, columnText(n.Column)+", "+n.Workload+": "+n.Text)
	}
	for _, r := range m.Rows {
		for _, cell := range r.Cells {
			if !cell.Measured() {
				continue
			}
			name := strings.NewReplacer("/", "_", "-", "_").Replace(columnText(cell.Column) + "_" + r.Workload + "_" + r.Figure)
			metrics[name], samples[name] = cell.Median, cell.Samples
		}
	}
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output() // empty outside a checkout
	b, err := json.MarshalIndent(map[string]any{
		"name": "matrix", "commit": strings.TrimSpace(string(commit)), "at": time.Now().UTC().Truncate(time.Second),
		"machine": thisMachine(), "columns": m.Columns, "metrics": metrics, "samples": samples, "notes": notes,
	}, "", " ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o644)
}

// thisMachine says what the command runs on, as far as the system tells.
func thisMachine() string {
	model := "unknown processor"
	info, _ := os.ReadFile("/proc/cpuinfo") // absent where there is no Linux
	for line := range strings.Lines(string(info)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(fmt.Sprintf("%s, %d cores, %s %s", model, runtime.NumCPU(), runtime.GOOS, release))
}
