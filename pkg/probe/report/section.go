// Package report shows what a probe has measured: as text for terminals, JSON, HTML in one file, PNG, and in the shape of the tables of studies
// that others have made. It is pure: a run goes in, text or octets come out, the same for the same run.
//
// Differences come first and absolutes second. A percentile that the number of samples does not support is a dash, one that was lost is "lost", and
// what was lost is in a column of its own.
package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// A section is one load on all paths.
type section struct {
	load  result.Load
	rows  []row
	floor *result.Floor
	noise []string // the head says it
}

type row struct {
	*result.Case
	path result.Path
	base bool
}

func (s *section) streams() bool { return s.load.Mode == result.Stream || s.load.Mode == result.Maerts }

// sections are in the order of the run's cases, rows in that of its paths, the baseline first.
func sections(run *result.Run) []section {
	var all []section
	for i := range run.Cases {
		load := run.Cases[i].Load
		known := false
		for _, s := range all {
			known = known || s.load == load
		}
		if known {
			continue
		}
		s := section{load: load, noise: run.Noise}
		for _, base := range []bool{true, false} {
			for _, p := range run.Paths {
				if (p.Name == run.Baseline) != base {
					continue
				}
				for k := range run.Cases {
					if c := &run.Cases[k]; c.Path == p.Name && c.Load == load {
						s.rows = append(s.rows, row{c, p, base})
					}
				}
			}
		}
		for k := range run.Floors {
			if run.Floors[k].Load == load {
				s.floor = &run.Floors[k]
			}
		}
		all = append(all, s)
	}
	return all
}

// mark is one character of a verdict.
func mark(e result.Effect) string {
	switch {
	case e.Verdict == result.Equivalent:
		return "="
	case e.Verdict == result.Different && e.Difference < 0:
		return "-"
	case e.Verdict == result.Different:
		return "+"
	case e.Verdict == result.Undecided:
		return "?"
	default:
		return "~"
	}
}

// explain says in words what a mark cannot, or nothing.
func explain(percentile string, e result.Effect) string {
	switch {
	case e.Verdict == result.Undecided && e.More > 0:
		return fmt.Sprintf("%s: undecided; %s would decide it", percentile, plural(e.More, "more session"))
	case e.Verdict == result.Undecided:
		return fmt.Sprintf("%s: undecided, and more sessions will hardly decide it", percentile)
	case e.Verdict == result.NoVerdict:
		return fmt.Sprintf("%s: no verdict: %s", percentile, e.Why)
	}
	return ""
}

// explanations are those of all rows, the same reason for many paths once.
func (s *section) explanations() []string {
	var all []string
	paths := map[string][]string{}
	for _, r := range s.rows {
		if r.Against == nil {
			continue
		}
		for _, x := range []struct {
			name string
			e    result.Effect
		}{{"p50", r.Against.P50}, {"p99", r.Against.P99}} {
			if x.e.Verdict == result.NoVerdict && slices.Contains(s.noise, x.e.Why) {
				continue
			}
			if text := explain(x.name, x.e); text != "" {
				if paths[text] == nil {
					all = append(all, text)
				}
				paths[text] = append(paths[text], r.Path)
			}
		}
	}
	for i, text := range all {
		names := strings.Join(paths[text], ", ")
		if n := len(paths[text]); n > 3 && n == len(s.rows)-1 {
			names = "all paths"
		}
		all[i] = names + ", " + text
	}
	return all
}

// notes are what numbers mean that are not of the path alone.
func (s *section) notes() []string {
	var all []string
	for _, r := range s.rows {
		if t := r.TCP; t != nil && t.Timeouts > 0 {
			all = append(all, fmt.Sprintf("%s, RTO: of %d round trips tcp_info says that something was sent again when a retransmission timer had expired, which is %v",
				r.Path, t.Timeouts, t.RTO))
		}
		if b := r.Background; b != nil && b.Part() < result.Reached*s.load.Under {
			all = append(all, fmt.Sprintf("%s: its stream had %s %% of its maximum, and not %s %%: these are round trips under less than that",
				r.Path, short(100*b.Part()), short(100*s.load.Under)))
		}
	}
	return all
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// us are microseconds with about three digits.
func us(ns float64) string {
	v := ns / 1000
	switch a := math.Abs(v); {
	case math.IsInf(v, 0):
		return "lost"
	case a < 9.995:
		return fmt.Sprintf("%.2f", v)
	case a < 99.95:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// delta has a sign, even if it is infinite.
func delta(d result.Delta) string {
	switch f := float64(d); {
	case math.IsInf(f, 1):
		return "+lost"
	case math.IsInf(f, -1):
		return "-lost"
	case f > 0 && us(f) != "0.00":
		return "+" + us(f)
	case us(f) == "-0.00":
		return "0.00"
	default:
		return us(f)
	}
}

// interval is as [+0.32,+0.35].
func interval(e result.Effect) string { return "[" + delta(e.Low) + "," + delta(e.High) + "]" }

func percentile(l *result.Latency, p float64) string {
	switch q, ok := l.At(p); {
	case !ok:
		return "-"
	case q.Lost:
		return "lost"
	default:
		return labelled(us(float64(q.Value)), q.RTO)
	}
}

// labelled says of a time that it is one of TCP's retransmission timer, and not of the path.
func labelled(time string, rto bool) string {
	if rto {
		return time + " RTO"
	}
	return time
}

func maximum(l *result.Latency) string {
	if l == nil || l.Count == 0 {
		return "-"
	}
	return labelled(us(float64(l.Max)), l.MaxRTO)
}

// count has its thousands apart.
func count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// perUnit is what a transaction costs, or a kB of a stream.
func perUnit(c result.CPU) float64 {
	if c.PerKB != 0 {
		return c.PerKB
	}
	return c.PerTransaction
}

func cost(v float64) string {
	if v == 0 {
		return "-"
	}
	if v < 1 {
		return fmt.Sprintf("%.3f", v)
	}
	return us(v * 1000)
}

// manner says how it was measured, for the head of a report.
func manner(run *result.Run) string {
	p := run.Parameters
	how := "sleeping"
	if p.Busy {
		how = "polling"
	}
	priority := "no real-time priority"
	if p.Priority > 0 {
		priority = fmt.Sprintf("SCHED_FIFO %d", p.Priority)
	}
	cpus := "any CPU"
	if p.CPUs[0] >= 0 && p.CPUs[1] >= 0 {
		cpus = fmt.Sprintf("CPUs %d and %d", p.CPUs[0], p.CPUs[1]) + apart(run)
	}
	s := fmt.Sprintf("%d sessions of %d rounds, bursts of %d; %s, %s, %s", p.Sessions, p.Rounds, p.Burst, how, priority, cpus)
	if c := p.StreamCPUs; c != nil {
		s += fmt.Sprintf("; streams in the background on CPUs %d and %d", c[0], c[1])
	}
	if w := p.Wire; w != (result.Wire{}) {
		s += "; wire: " + w.String()
	}
	return s
}

// apart says how far apart the two CPUs were when sessions began, if that is known.
func apart(run *result.Run) string {
	var least, most time.Duration
	for _, c := range run.Cases {
		for _, s := range c.Sessions {
			if d := s.Noise.Apart; d > 0 {
				most = max(most, d)
				if least == 0 || d < least {
					least = d
				}
			}
		}
	}
	switch {
	case most == 0:
		return ""
	case most < 2*least:
		return fmt.Sprintf(" (a cache line takes %d to %d ns there and back)", least.Nanoseconds(), most.Nanoseconds())
	}
	return fmt.Sprintf(" (a cache line takes %d to %d ns there and back: they are moved, and round trips change with that)", least.Nanoseconds(), most.Nanoseconds())
}

func short(f float64) string { return fmt.Sprintf("%.3g", f) }

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// floorText is as "0.19 us at p50, 0.42 us at p99".
func (s *section) floorText() string {
	if s.floor == nil {
		return "not known: there are no twins"
	}
	known := func(d result.Delta) string {
		if d == 0 {
			return "not known"
		}
		return us(float64(d)) + " us"
	}
	return fmt.Sprintf("%s at p50, %s at p99 (%s of twins)", known(s.floor.P50), known(s.floor.P99), plural(s.floor.Pairs, "pair"))
}

// distribution merges a case's sessions.
func (r row) distribution() (*stats.Distribution, error) {
	all := make([]*stats.Distribution, len(r.Sessions))
	for i, s := range r.Sessions {
		d, err := stats.Decode(s.Histogram, s.Loss.Lost)
		if err != nil {
			return nil, fmt.Errorf("report: %s, %s, session %d: %w", r.Path, r.Load, i+1, err)
		}
		all[i] = d
	}
	return stats.Merge(all...), nil
}
