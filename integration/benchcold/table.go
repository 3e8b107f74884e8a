package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/integration/lab"
)

// A quantity is a column of the table: what is measured, and how much of ovn-controller's we aim at.
type quantity struct {
	name string
	goal float64 // median of ours over median of theirs; 0: none
	of   func(result) float64
	form string
}

var quantities = []quantity{
	{"acknowledged s", 0.25, func(r result) float64 { return r.acknowledged.Seconds() }, "%.3f"},
	{"complete s", 0.25, func(r result) float64 { return r.complete.Seconds() }, "%.3f"},
	{"CPU s", 0.5, func(r result) float64 { return r.cpu.Seconds() }, "%.2f"},
	{"peak RSS MB", 0.6, func(r result) float64 { return float64(r.peak) / 1e6 }, "%.0f"},
	{"flows", 0, func(r result) float64 { return float64(r.flows) }, "%.0f"},
}

// table prints minimum and median of each quantity for each agent, and the ratios of the medians.
func table(results map[lab.Agent][]result) string {
	var b strings.Builder
	row := func(name string, cell func(quantity) string) {
		fmt.Fprintf(&b, "%-20s", name)
		for _, q := range quantities {
			fmt.Fprintf(&b, "%18s", cell(q))
		}
		b.WriteString("\n")
	}
	row("min / median", func(q quantity) string { return q.name })
	for _, agent := range agents {
		row(string(agent), func(q quantity) string {
			low, median := spread(results[agent], q.of)
			return fmt.Sprintf(q.form+" / "+q.form, low, median)
		})
	}
	row("ratio of medians", func(q quantity) string {
		_, theirs := spread(results[lab.OVNController], q.of)
		_, ours := spread(results[lab.Offloadd], q.of)
		if theirs == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", ours/theirs)
	})
	row("ratio of minima", func(q quantity) string {
		theirs, _ := spread(results[lab.OVNController], q.of)
		ours, _ := spread(results[lab.Offloadd], q.of)
		if theirs == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", ours/theirs)
	})
	row("aim", func(q quantity) string {
		if q.goal == 0 {
			return "equal"
		}
		return fmt.Sprintf("1.00, goal %.2f", q.goal)
	})
	return b.String()
}

// spread returns the minimum and the median; the median of an even number is the lower of the two in the middle.
func spread(results []result, of func(result) float64) (low, median float64) {
	values := make([]float64, len(results))
	for i, r := range results {
		values[i] = of(r)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0, 0
	}
	return values[0], values[(len(values)-1)/2]
}
