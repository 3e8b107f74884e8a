package stats

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A Change is what became, from one run to another, of what a path has more than the baseline. The baseline itself is not compared: what
// all paths have in common moves by a fifth in minutes, with the machine. Nor are twins, which say what is noise.
type Change struct {
	Path string
	Load result.Load
	P50  result.Effect
	P99  result.Effect
}

// Changes compares the paths and loads that both runs have, in the order of the new one. Both have been judged with the same parameters,
// which the caller checks. A verdict is that of Judge; the floor is that of two runs that are independent of each other.
func Changes(old, new *result.Run) ([]Change, error) {
	old, new = copied(old), copied(new)
	before, err := newCampaign(old)
	if err != nil {
		return nil, err
	}
	after, err := newCampaign(new)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, l := range after.loads {
		i := slices.IndexFunc(before.loads, func(b *load) bool { return b.load == l.load })
		if i < 0 || l.streams() {
			continue
		}
		b := before.loads[i]
		for _, x := range []struct {
			*load
			run *result.Run
		}{{b, old}, {l, new}} {
			x.summarise()
			x.leaveOutNoisy(x.run.Parameters.Limits)
		}
		var of []string
		for _, m := range l.cases {
			if m.Path != new.Baseline && m.path.Twin == "" && b.find(m.Path) != nil {
				of = append(of, m.Path)
			}
		}
		p50, p99 := change(old, new, b, l, of, 50), change(old, new, b, l, of, 99)
		for i, path := range of {
			changes = append(changes, Change{Path: path, Load: l.load, P50: p50[i], P99: p99[i]})
		}
	}
	return changes, nil
}

func change(old, new *result.Run, before, after *load, paths []string, p float64) []result.Effect {
	x, y := before.find(old.Baseline), after.find(new.Baseline)
	if x == nil || y == nil {
		return slices.Repeat([]result.Effect{{Verdict: result.NoVerdict, Why: "there is no baseline"}}, len(paths))
	}
	family := make([]*comparison, len(paths))
	for i, path := range paths {
		a := before.compare(old, before.find(path), x, p)
		b := after.compare(new, after.find(path), y, p)
		c := &comparison{sessions: min(a.sessions, b.sessions), floor: math.Hypot(a.floor, b.floor), difference: b.difference - a.difference}
		family[i] = c
		switch {
		case a.why != "":
			c.why = "old: " + a.why
		case b.why != "":
			c.why = "new: " + b.why
		case math.IsNaN(c.difference):
			c.why, c.sessions = "lost in both", 0
		}
		if c.sessions == 0 || len(a.replicates) == 0 || len(b.replicates) == 0 {
			c.sessions = 0
			continue
		}
		c.replicates = subtract(a.replicates, b.replicates, source(new.Parameters.Seed, path+" changed", after.load, p))
	}
	decide(family, float64(new.Parameters.Margin))
	effects := make([]result.Effect, len(family))
	for i, c := range family {
		effects[i] = c.effect()
	}
	return effects
}

// subtract draws from two independent distributions. Two infinite values do not differ.
func subtract(a, b []float64, r *rand.Rand) []float64 {
	all := make([]float64, replicates)
	for i := range all {
		if d := b[r.IntN(len(b))] - a[r.IntN(len(a))]; !math.IsNaN(d) {
			all[i] = d
		}
	}
	slices.Sort(all)
	return all
}

// copied has cases of its own, for what is computed of them.
func copied(run *result.Run) *result.Run {
	c := *run
	c.Cases = slices.Clone(run.Cases)
	return &c
}
