package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"consort.dev/consort/estate"
)

// table is objects of one kind, a row each.
type table struct {
	kind     estate.Kind
	projects bool
	rows     [][]string
}

func newTable(kind estate.Kind, projects bool) *table { return &table{kind: kind, projects: projects} }

func (t *table) head() []string {
	head := append([]string{"NAME"}, columns(t.kind)...)
	if t.projects {
		head = append([]string{"PROJECT"}, head...)
	}
	return append(head, "AGE")
}

func (t *table) add(r estate.Resource, now time.Time) {
	m := r.Header().Metadata
	row := append([]string{m.Name}, cells(r)...)
	if t.projects {
		row = append([]string{m.Project}, row...)
	}
	t.rows = append(t.rows, append(row, age(m.Created, now)))
}

func (t *table) write(w io.Writer) error {
	return writeRows(w, append([][]string{t.head()}, t.rows...))
}

// line writes the rows without the head, for a watch.
func (t *table) line(w io.Writer) error { return writeRows(w, t.rows) }

// writeRows writes rows in columns. An empty cell is a dash.
func writeRows(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range rows {
		out := make([]string, len(row))
		for i, cell := range row {
			if out[i] = strings.Join(strings.Fields(cell), " "); out[i] == "" {
				out[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(out, "\t"))
	}
	return tw.Flush()
}

// columns are what the table of a kind shows between name and age.
func columns(k estate.Kind) []string {
	return strings.Fields(map[estate.Kind]string{
		"Project":      "TITLE",
		"Person":       "TITLE ADMIN",
		"Group":        "MEMBERS",
		"Hypervisor":   "STATE PROVIDER PRODUCT ACCELERATOR CPUS FREE-MEMORY",
		"Context":      "TITLE COLOUR TRUST LIFETIME NETWORK",
		"Network":      "SUBNET EGRESS",
		"Image":        "STATE SIZE STORED DIGEST",
		"Application":  "TITLE DELIVERY VERSIONS STATE",
		"ServiceLevel": "APPLICATION TARGET STATE LEFT",
		"Blueprint":    "IMAGE PRESENTATION APPLICATIONS CONTEXT",
		"Volume":       "PERSON SIZE HYPERVISOR",
		"Pool":         "WARM WANTED TAKEN MAXIMUM QUEUE MAKE WAITING",
		"Service":      "READY WANTED MOST REVISION LEVEL ADDRESS WAITING",
		"Desktop":      "STATE PERSON BLUEPRINT PRESENTATION WAITING",
		"Machine":      "POWER HYPERVISOR CPUS MEMORY STARTS WAITING",
		"Session":      "STATE DESKTOP PERSON PRESENTATION WAITING",
		"Grant":        "TO OF ROLE",
		"Operation":    "VERB ON STATE STEP ENDED",
		"Decision":     "AT ON ACT STATE MET SAY",
		"Trial":        "RUN HYPERVISOR PRODUCT WORKLOAD FIGURES AT",
		"Event":        "AT ON REASON TEXT",
	}[k])
}

// cells are the values for columns.
func cells(r estate.Resource) []string {
	switch r := r.(type) {
	case *estate.Project:
		return []string{r.Spec.Title}
	case *estate.Person:
		return []string{r.Spec.Title, yes(r.Spec.Admin)}
	case *estate.Group:
		return []string{strings.Join(r.Spec.Members, ", ")}
	case *estate.Hypervisor:
		s := &r.Status
		return []string{orElse(string(s.State), "not joined"), r.Spec.Provider, clip(s.Product, 32), s.Accelerator, number(s.Capacity.CPUs), amount(s.Free.Memory)}
	case *estate.Context:
		return []string{r.Spec.Title, r.Spec.Colour, strconv.Itoa(r.Spec.Trust), orElse(string(r.Spec.Lifetime), "persistent"), r.Spec.Network}
	case *estate.Network:
		return []string{r.Spec.Subnet, yes(r.Spec.Egress)}
	case *estate.Image:
		return []string{imageState(r), amount(r.Status.Size), amount(r.Status.Stored), r.Status.Digest.Short()}
	case *estate.Application:
		return []string{r.Spec.Title, r.Spec.Delivery, versionsOf(r), applicationState(r)}
	case *estate.ServiceLevel:
		left := ""
		if r.Status.Total > 0 {
			left = strconv.FormatInt(r.Status.Left, 10)
		}
		return []string{r.Spec.Application, r.Spec.Target.String(), orElse(string(r.Status.State), string(estate.NoData)), left}
	case *estate.Blueprint:
		return []string{r.Spec.Image, r.Spec.Presentation, choices(r), r.Spec.Context}
	}
	return livingCells(r)
}

// livingCells are those of kinds whose objects come and go with desktops.
func livingCells(r estate.Resource) []string {
	switch r := r.(type) {
	case *estate.Volume:
		return []string{r.Spec.Person, amount(r.Spec.Size), r.Status.Hypervisor}
	case *estate.Pool:
		s := &r.Status
		return []string{strconv.Itoa(s.Warm), strconv.Itoa(s.Wanted), strconv.Itoa(s.Taken), strconv.Itoa(r.Spec.Maximum), number(s.Queue), lasting(s.Make), short(s.Waiting)}
	case *estate.Service:
		return serviceCells(r)
	case *estate.Decision:
		return decisionCells(r)
	case *estate.Desktop:
		return []string{string(r.Status.State), r.Spec.Person, r.Spec.Blueprint, r.Status.Presentation, short(r.Status.Waiting)}
	case *estate.Machine:
		return []string{string(r.Status.Power), r.Spec.Hypervisor, number(r.Spec.Hardware.CPUs), amount(r.Spec.Hardware.Memory), number(int(r.Status.Starts)), short(r.Status.Waiting)}
	case *estate.Session:
		return []string{string(r.Status.State), orElse(r.Spec.Desktop, "pool "+r.Spec.Pool), r.Spec.Person, r.Status.Way.Name, short(r.Status.Waiting)}
	case *estate.Grant:
		to := "person " + r.Spec.To.Person
		if r.Spec.To.Group != "" {
			to = "group " + r.Spec.To.Group
		}
		return []string{to, strings.TrimSpace(strings.ToLower(string(r.Spec.Of.Kind)) + " " + r.Spec.Of.Name), string(r.Spec.Role)}
	case *estate.Operation:
		return []string{r.Spec.Verb, r.Spec.On.String(), string(r.Status.State), stepOf(r), clock(r.Status.Ended)}
	case *estate.Trial:
		s := &r.Spec
		return []string{s.Run, s.Hypervisor, clip(s.Product, 32), s.Workload, orElse(number(len(s.Figures)), short(s.Note)), clock(s.At)}
	case *estate.Event:
		return []string{clock(r.Spec.At), r.Spec.On.String(), r.Spec.Reason, r.Spec.Text}
	}
	return nil
}

// stepOf names the step an operation is in, or the last one it did.
func stepOf(op *estate.Operation) string {
	if n := len(op.Status.Steps); n > 0 {
		return op.Status.Steps[n-1].Name
	}
	return ""
}

func imageState(m *estate.Image) string {
	switch s := &m.Status; {
	case s.Work != nil:
		return fmt.Sprintf("%s %d%%", s.Work.Phase, s.Work.Percent)
	case s.Digest != "":
		return "ready"
	case s.Get(estate.Ready).Status == estate.False && s.Waiting == "":
		return "failed"
	}
	return "waiting"
}

func applicationState(a *estate.Application) string {
	ready, state := 0, ""
	for _, l := range a.Status.Layers {
		switch {
		case l.Work != nil:
			state = fmt.Sprintf("%s %d%%", l.Work.Phase, l.Work.Percent)
		case l.Digest != "":
			ready++
		case l.Text != "" && state == "":
			state = "failed"
		}
	}
	if state != "" {
		return state
	}
	return count(ready, "layer")
}

func versionsOf(a *estate.Application) string {
	var all []string
	for _, v := range a.Spec.Versions {
		all = append(all, v.Name)
	}
	return strings.Join(all, ", ")
}

func choices(b *estate.Blueprint) string {
	var all []string
	for _, a := range b.Spec.Applications {
		all = append(all, strings.TrimSuffix(a.Name+" "+a.Version, " "))
	}
	return strings.Join(all, ", ")
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// lasting writes a length of time with its first two digits or so.
func lasting(d estate.Duration) string {
	switch t := time.Duration(d); {
	case t == 0:
		return ""
	case t < 10*time.Second:
		return t.Round(10 * time.Millisecond).String()
	default:
		return t.Round(time.Second).String()
	}
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// short keeps a sentence to what a table has room for.
func short(s string) string { return clip(s, 60) }

func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return strings.TrimSpace(string(r[:most-3])) + "..."
	}
	return s
}

// amount writes bytes for people: three digits are enough.
func amount(b estate.Bytes) string {
	if b == 0 {
		return ""
	}
	for _, u := range []struct {
		size estate.Bytes
		name string
	}{{estate.TiB, "Ti"}, {estate.GiB, "Gi"}, {estate.MiB, "Mi"}, {estate.KiB, "Ki"}} {
		if b >= u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(b)/float64(u.size)), ".0") + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// age is how long ago something was, in its largest unit.
func age(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	switch d := max(0, now.Sub(t)); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.TimeOnly)
}
