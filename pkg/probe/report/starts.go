package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// millis are milliseconds with about three digits.
func millis(ns float64) string { return us(ns / 1000) }

// startSteps are the steps of all cases, those of a step beneath each other.
func startSteps(s *result.Starts) []column {
	type line struct {
		c    *result.StartCase
		step *result.StartStep
	}
	var lines []line
	for _, name := range result.StartSteps() {
		for i := range s.Cases {
			c := &s.Cases[i]
			if k := slices.IndexFunc(c.Steps, func(x result.StartStep) bool { return x.Name == name }); k >= 0 {
				lines = append(lines, line{c, &c.Steps[k]})
			}
		}
	}
	col := func(name string, weight int, cell func(line) string) column {
		c := column{name: name, weight: weight}
		for _, l := range lines {
			c.cells = append(c.cells, cell(l))
		}
		return c
	}
	at := func(p float64) func(line) string {
		return func(l line) string {
			switch q, ok := l.step.Latency.At(p); {
			case !ok:
				return "-"
			case q.Lost:
				return "never"
			default:
				return millis(float64(q.Value))
			}
		}
	}
	answered := func(value func(*result.Latency) int64) func(line) string {
		return func(l line) string {
			if l.step.Latency == nil || l.step.Latency.Count == 0 {
				return "-"
			}
			return millis(float64(value(l.step.Latency)))
		}
	}
	step := col("until", 0, func(l line) string { return l.step.Name })
	path := col("ports", 0, func(l line) string { return l.c.Path })
	step.left, path.left = true, true
	return []column{
		step, path,
		col("n", 3, func(l line) string {
			if l.step.Latency == nil {
				return "0"
			}
			return fmt.Sprint(l.step.Latency.Count)
		}),
		col("never", 0, func(l line) string {
			if l.step.Latency == nil {
				return "0"
			}
			return fmt.Sprint(l.step.Latency.Lost)
		}),
		col("min", 2, answered(func(x *result.Latency) int64 { return x.Min })),
		col("p50", 0, at(50)), col("p90", 4, at(90)), col("p99", 6, at(99)),
		col("max", 5, answered(func(x *result.Latency) int64 { return x.Max })),
		col("packet", 1, func(l line) string {
			if l.step.Exact == 0 {
				return "-"
			}
			return fmt.Sprintf("#%d (%d)", l.step.Packet, l.step.Exact)
		}),
	}
}

// startRates are what cases say of all steps.
func startRates(s *result.Starts) []column {
	col := func(name string, cell func(*result.StartCase) string) column {
		c := column{name: name}
		for i := range s.Cases {
			c.cells = append(c.cells, cell(&s.Cases[i]))
		}
		return c
	}
	rate := func(r float64) string {
		if r == 0 {
			return "-"
		}
		return short(r)
	}
	path := col("ports", func(c *result.StartCase) string { return c.Path })
	path.left = true
	return []column{
		path,
		col("starts", func(c *result.StartCase) string {
			n := 0
			for _, b := range c.Batches {
				n += len(b.Starts)
			}
			return fmt.Sprint(n)
		}),
		col("failed", func(c *result.StartCase) string { return fmt.Sprint(c.Failed) }),
		col("made/s", func(c *result.StartCase) string { return rate(c.Made) }),
		col("answered/s", func(c *result.StartCase) string { return rate(c.Answered) }),
		col("deleted/s", func(c *result.StartCase) string { return rate(c.Deleted) }),
	}
}

const (
	startsMean = "ms from the request on; deletion: from when that was asked for. never: starts that failed, or did not come so far in time, which percentiles count as infinitely late. " +
		"packet: which was the first, the median, and of how many starts that is known exactly; answers and requests count from the first that was answered"
	ratesMean = "ports per second: those that were asked for at once, by the time until the last of them was made, answered, deleted"
)

// startsManner says how it was measured.
func startsManner(run *result.Run) string {
	s := run.Starts
	return fmt.Sprintf("new ports of %s in turn, in random order (seed %d), answered by %s (%s, %s, %s); a packet every %v, followed for %v",
		plural(len(s.Ports), "logical port"), run.Parameters.Seed, s.Target.Name, s.Target.Kind, s.Target.Device, s.Target.Address, s.Interval, s.Wait)
}

// startNotes say what is not measured, and which starts have failed, the same reason once.
func startNotes(s *result.Starts) []string {
	var all []string
	if s.NoFilters != "" {
		all = append(all, "by filters, in hardware: "+s.NoFilters)
	}
	said := map[string]bool{}
	for i := range s.Cases {
		c := &s.Cases[i]
		for _, name := range result.StartSteps() {
			if why := c.Never[name]; why != "" && s.NoFilters == "" && !said[c.Kind+name] {
				said[c.Kind+name] = true
				all = append(all, fmt.Sprintf("%s, %s: %s", c.Kind, name, why))
			}
		}
		failures := map[string]int{}
		var order []string
		for _, b := range c.Batches {
			for _, x := range b.Starts {
				for _, why := range []string{x.Failed, x.Requests.Unknown, x.Answers.Unknown} {
					if why == "" {
						continue
					}
					if failures[why] == 0 {
						order = append(order, why)
					}
					failures[why]++
				}
			}
		}
		for _, why := range order {
			all = append(all, fmt.Sprintf("%s, %s: %s", c.Path, plural(failures[why], "time"), why))
		}
	}
	return all
}

// startsText is a run of starts for a terminal.
func startsText(b *strings.Builder, run *result.Run, columns int) {
	say := func(format string, args ...any) { wrap(b, fmt.Sprintf(format, args...), columns) }
	b.WriteString("\n")
	fit(b, startSteps(run.Starts), columns)
	say("%s", startsMean)
	b.WriteString("\n")
	fit(b, startRates(run.Starts), columns)
	say("%s", ratesMean)
	if notes := startNotes(run.Starts); len(notes) > 0 {
		b.WriteString("\n")
		for _, n := range notes {
			say("%s", n)
		}
	}
}

// startCurves are the steps of a case by percentile, in milliseconds where percentilePlot has microseconds.
func startCurves(c *result.StartCase) (all []curve) {
	for i, s := range c.Steps {
		d := stats.StartTimes(c, s.Name)
		k := curve{name: s.Name, ink: seriesInk(i), lost: s.Latency != nil && s.Latency.Lost >= stats.Beyond}
		if turn := i / hues; turn > 0 {
			k.dash = "7 3"
		}
		for _, p := range d.Curve() {
			k.points = append(k.points, stats.Point{Below: p.Below, Value: max(p.Value/int64(time.Microsecond), 1)})
		}
		if len(k.points) > 0 {
			all = append(all, k)
		}
	}
	return all
}

// starts is the part of a page that startsText is of a terminal.
func (p *page) starts(run *result.Run) {
	s := run.Starts
	p.add("<section>\n<h2>Starts</h2>\n")
	p.table(startSteps(s), nil)
	p.add("<p class=sub>%s.</p>\n<h3>Ports per second</h3>\n", e(startsMean))
	p.table(startRates(s), nil)
	p.add("<p class=sub>%s.</p>\n", e(ratesMean))
	if notes := startNotes(s); len(notes) > 0 {
		p.add("<ul class=notes>")
		for _, n := range notes {
			p.add("<li>%s</li>", e(n))
		}
		p.add("</ul>\n")
	}
	for i := range s.Cases {
		if curves := startCurves(&s.Cases[i]); len(curves) > 0 {
			p.add("<h3>%s, by percentile</h3>\n", e(s.Cases[i].Path))
			p.figure("steps of "+s.Cases[i].Path+" by percentile", percentileHeight(curves), func(c canvas) { percentilePlot(c, curves, "ms") })
		}
	}
	p.add("</section>\n")
}
