package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// A Diff is what has changed from one run to another: how much more than the baseline a path takes. Absolutes are shown, and not judged.
type Diff struct {
	Old, New *result.Run
	Changes  []stats.Change
	// Facts are those that differ, of the machine and the program: what, then, now.
	Facts [][3]string
	// Gone and Come are paths of one run only.
	Gone, Come []string
}

// Statuses of a Diff, for a program to exit with. 1 is for errors: nothing could be compared.
const (
	Same     = 0 // all paths take as much more as before, or less
	Slower   = 2 // some path takes more
	NotKnown = 3 // none does for certain, but for some there is no verdict, or it is undecided
)

// Compare refuses runs whose parameters differ in what they measure: loads, how they were sent, the baseline and the wire. Numbers of sessions and rounds may
// differ, and machines and programs: a diff lists how.
func Compare(old, new *result.Run) (*Diff, error) {
	if old.Starts != nil || new.Starts != nil {
		return nil, fmt.Errorf("report diff %s %s: runs of starts have nothing that is compared: there is no baseline", old.ID, new.ID)
	}
	if unlike := unlike(old, new); len(unlike) > 0 {
		return nil, fmt.Errorf("report diff %s %s: the runs do not measure the same: %s", old.ID, new.ID, strings.Join(unlike, "; "))
	}
	changes, err := stats.Changes(old, new)
	if err != nil {
		return nil, fmt.Errorf("report diff %s %s: %w", old.ID, new.ID, err)
	}
	d := &Diff{Old: old, New: new, Changes: changes}
	for _, f := range [][3]string{
		{"program", old.Program, new.Program},
		{"host", old.Machine.Hostname, new.Machine.Hostname},
		{"kernel", old.Machine.Kernel, new.Machine.Kernel},
		{"CPU", old.Machine.CPU, new.Machine.CPU},
		{"CPUs", fmt.Sprint(old.Machine.CPUs), fmt.Sprint(new.Machine.CPUs)},
	} {
		d.fact(f)
	}
	names := maps.Clone(old.Machine.Facts)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, new.Machine.Facts)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d.fact([3]string{name, old.Machine.Facts[name], new.Machine.Facts[name]})
	}
	for _, p := range new.Paths {
		before := find(old, p.Name)
		if before == nil {
			d.Come = append(d.Come, p.Name)
			continue
		}
		names := maps.Clone(before.Facts)
		if names == nil {
			names = map[string]string{}
		}
		maps.Copy(names, p.Facts)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			d.fact([3]string{p.Name + ": " + name, before.Facts[name], p.Facts[name]})
		}
	}
	for _, p := range old.Paths {
		if find(new, p.Name) == nil {
			d.Gone = append(d.Gone, p.Name)
		}
	}
	return d, nil
}

func find(run *result.Run, path string) *result.Path {
	for i := range run.Paths {
		if run.Paths[i].Name == path {
			return &run.Paths[i]
		}
	}
	return nil
}

func (d *Diff) fact(f [3]string) {
	if f[1] != f[2] {
		d.Facts = append(d.Facts, f)
	}
}

func unlike(old, new *result.Run) []string {
	a, b := old.Parameters, new.Parameters
	var all []string
	for _, x := range []struct {
		name     string
		old, new any
	}{
		{"baseline", old.Baseline, new.Baseline},
		{"loads", fmt.Sprint(a.Loads), fmt.Sprint(b.Loads)},
		{"burst", a.Burst, b.Burst},
		{"timeout", a.Timeout, b.Timeout},
		{"polling", a.Busy, b.Busy},
		{"priority", a.Priority, b.Priority},
		{"same CPU for both sides", a.CPUs[0] == a.CPUs[1], b.CPUs[0] == b.CPUs[1]},
		{"wire", a.Wire, b.Wire},
	} {
		if x.old != x.new {
			all = append(all, fmt.Sprintf("%s was %v, is %v", x.name, x.old, x.new))
		}
	}
	for _, p := range new.Paths {
		if q := find(old, p.Name); q != nil && (q.Kind != p.Kind || q.Twin != p.Twin) {
			all = append(all, fmt.Sprintf("path %s was %s, is %s", p.Name, q.Kind, p.Kind))
		}
	}
	return all
}

// Status is one of the constants.
func (d *Diff) Status() int {
	status := Same
	for _, c := range d.Changes {
		for _, e := range []result.Effect{c.P50, c.P99} {
			switch {
			case e.Verdict == result.Different && e.Difference > 0:
				return Slower
			case e.Verdict == result.Undecided, e.Verdict == result.NoVerdict:
				status = NotKnown
			}
		}
	}
	if len(d.Changes) == 0 {
		return NotKnown
	}
	return status
}

// Text is a diff for a terminal, as Text is of a run.
func (d *Diff) Text(columns int) string {
	var b strings.Builder
	say := func(format string, args ...any) { wrap(&b, fmt.Sprintf(format, args...), columns) }
	say("old %s, %s", d.Old.ID, when(d.Old.Started))
	say("new %s, %s", d.New.ID, when(d.New.Started))
	for _, f := range d.Facts {
		say("differs: %s: %s, now %s", f[0], orNone(f[1]), orNone(f[2]))
	}
	if len(d.Facts) == 0 {
		say("machine and program: nothing differs that is known")
	}
	if len(d.Gone) > 0 {
		say("only in the old run: %s", strings.Join(d.Gone, ", "))
	}
	if len(d.Come) > 0 {
		say("only in the new run: %s", strings.Join(d.Come, ", "))
	}
	for rest := d.Changes; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Load == rest[0].Load {
			n++
		}
		b.WriteString("\n")
		d.load(&b, rest[:n], columns, say)
		rest = rest[n:]
	}
	b.WriteString("\n")
	switch d.Status() {
	case Slower:
		say("some paths have become slower")
	case NotKnown:
		say("nothing has become slower for certain; not all is known")
	default:
		say("nothing has become slower")
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func (d *Diff) load(b *strings.Builder, changes []stats.Change, columns int, say func(string, ...any)) {
	say("%s, us: how what a path takes more than %s has changed", changes[0].Load, d.New.Baseline)
	col := func(name string, weight int, left bool, cell func(stats.Change) string) column {
		c := column{name: name, weight: weight, left: left}
		for _, x := range changes {
			c.cells = append(c.cells, cell(x))
		}
		return c
	}
	all := []column{col("path", 0, true, func(c stats.Change) string { return c.Path })}
	for k, pick := range []func(stats.Change) result.Effect{
		func(c stats.Change) result.Effect { return c.P50 }, func(c stats.Change) result.Effect { return c.P99 },
	} {
		p := []float64{50, 99}[k]
		name := fmt.Sprint("p", p)
		absolute := func(run *result.Run) func(stats.Change) string {
			return func(c stats.Change) string {
				for i := range run.Cases {
					if run.Cases[i].Path == c.Path && run.Cases[i].Load == c.Load {
						return percentile(run.Cases[i].Latency, p)
					}
				}
				return "-"
			}
		}
		all = append(all,
			col("old "+name, 1, false, absolute(d.Old)), col("new "+name, 1, false, absolute(d.New)),
			col("change", 0, false, func(c stats.Change) string {
				if e := pick(c); e.Sessions > 0 {
					return delta(e.Difference) + " " + mark(e)
				}
				return "~"
			}),
			col("[95 %]", 3, true, func(c stats.Change) string {
				if e := pick(c); e.Sessions > 0 {
					return interval(e)
				}
				return ""
			}),
			col("floor", 2, false, func(c stats.Change) string {
				if e := pick(c); e.Sessions > 0 {
					return us(float64(e.Floor))
				}
				return ""
			}))
	}
	fit(b, all, columns)
	for _, c := range changes {
		for k, e := range []result.Effect{c.P50, c.P99} {
			if text := explain([]string{"p50", "p99"}[k], e); text != "" {
				say("%s, %s", c.Path, text)
			}
		}
	}
}
