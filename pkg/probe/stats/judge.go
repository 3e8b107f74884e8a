// Package stats turns the sessions of a probe into distributions, differences and verdicts. It is pure, and deterministic: the seed is in
// the run's parameters.
//
// The unit of replication is the session, not the packet: packets of one process follow each other, and share its placement in memory
// and the machine's mood, so an interval of the packets of one process is far too narrow. An effect is the median over sessions of the
// difference between a path's percentile and the baseline's in the same session; its interval is bootstrapped on two levels, sessions and
// then blocks inside (Kalibera and Jones, "Rigorous benchmarking in reasonable time", 2013). Differences up to the floor are
// seen between identical paths, too. Intervals may err where packets would, but the floor is measured.
//
// What the floor cannot show: an offset that a path's devices keep for a whole campaign. Twins show it only if a path's devices are made anew for each
// session, as the path's own are.
package stats

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// alpha is how often a difference may be seen where there is none, over all paths of a load.
const alpha = 0.05

// minSessions is the least number whose extremes cover the median in 95 of 100 cases: 1 - 2/2^6 = 0.969.
const minSessions = 6

// maxMore is the number of further sessions beyond which we do not say how many it would take: the estimate is worth nothing there.
const maxMore = 1000

// DefaultLimits are judgement: with real-time priority on CPUs of its own a probe sees a tenth of them.
func DefaultLimits() result.Limits {
	return result.Limits{Steal: 0.05, Others: 0.2, Switches: 100, Floor: 0.25}
}

// Judge computes what run has besides its sessions: summaries of cases, floors, effects with verdicts, and noise. Sessions that were
// disturbed beyond the limits are left out of comparisons, on all paths; if fewer than half are left, or if there are doubts, there is no
// verdict. What was computed before is replaced.
func Judge(run *result.Run) error {
	run.Noise, run.Floors = slices.Clone(run.Doubts), nil
	c, err := newCampaign(run)
	if err != nil {
		return err
	}
	if run.Starts != nil {
		summariseStarts(run.Starts)
	}
	for _, l := range c.loads {
		l.summarise()
		if l.streams() {
			continue
		}
		l.leaveOutNoisy(run.Parameters.Limits)
		run.Noise = append(run.Noise, l.noise...)
		l.judge(run)
	}
	if run.Ports != nil && len(c.loads) > 0 {
		c.loads[0].breakEvens(run) // first packets are of the first load
	}
	return nil
}

// A load is one load on all paths.
type load struct {
	load  result.Load
	cases []*measured
	quiet []int    // the sessions that were not disturbed
	noise []string // why there is no verdict

	medians []*comparison // of the 50th percentile, by judge
}

func (l *load) streams() bool { return l.load.Mode == result.Stream || l.load.Mode == result.Maerts }

type measured struct {
	*result.Case
	path                result.Path
	sessions, fromSend  []*Distribution
	merged, mergedSends *Distribution
	waited              []*Distribution // for retransmissions
}

type campaign struct{ loads []*load }

// newCampaign decodes what run has, and refuses what does not fit together.
func newCampaign(run *result.Run) (*campaign, error) {
	paths := map[string]result.Path{}
	for _, p := range run.Paths {
		if _, twice := paths[p.Name]; twice {
			return nil, fmt.Errorf("stats: path %s is there twice", p.Name)
		}
		paths[p.Name] = p
	}
	for _, p := range run.Paths {
		if _, ok := paths[p.Twin]; p.Twin != "" && (!ok || p.Twin == p.Name) {
			return nil, fmt.Errorf("stats: path %s is a twin of %s, which is not another path", p.Name, p.Twin)
		}
	}
	if _, ok := paths[run.Baseline]; !ok {
		return nil, fmt.Errorf("stats: the baseline %q is not a path", run.Baseline)
	}
	c := &campaign{}
	for i := range run.Cases {
		cs := &run.Cases[i]
		p, ok := paths[cs.Path]
		if !ok {
			return nil, fmt.Errorf("stats: case %d is of %q, which is not a path", i, cs.Path)
		}
		m := &measured{Case: cs, path: p}
		for j, s := range cs.Sessions {
			d, err := Decode(s.Histogram, s.Loss.Lost)
			if err != nil {
				return nil, fmt.Errorf("%s, %s, session %d: %w", cs.Path, cs.Load, j+1, err)
			}
			sends, err := Decode(s.FromSend, s.Loss.Lost)
			if err != nil {
				return nil, fmt.Errorf("%s, %s, session %d, from when it was sent: %w", cs.Path, cs.Load, j+1, err)
			}
			if s.TCP != nil {
				waited, err := Decode(s.TCP.Waited, 0)
				if err != nil {
					return nil, fmt.Errorf("%s, %s, session %d, what waited for retransmissions: %w", cs.Path, cs.Load, j+1, err)
				}
				m.waited = append(m.waited, waited)
			}
			m.sessions = append(m.sessions, d)
			m.fromSend = append(m.fromSend, sends)
		}
		c.add(m)
	}
	return c, nil
}

func (c *campaign) add(m *measured) {
	i := slices.IndexFunc(c.loads, func(l *load) bool { return l.load == m.Load })
	if i < 0 {
		i = len(c.loads)
		c.loads = append(c.loads, &load{load: m.Load})
	}
	c.loads[i].cases = append(c.loads[i].cases, m)
}

func (l *load) find(path string) *measured {
	i := slices.IndexFunc(l.cases, func(m *measured) bool { return m.Path == path })
	if i < 0 {
		return nil
	}
	return l.cases[i]
}

// summarise fills what a case says of all of its sessions, disturbed or not.
func (l *load) summarise() {
	for _, m := range l.cases {
		m.Latency, m.FromSend, m.Against, m.TCP = nil, nil, nil, nil
		m.Loss, m.CPU, m.Rate = result.Loss{}, [2]result.CPU{}, 0
		var jitter, elapsed, transactions, octets float64
		for i, s := range m.Sessions {
			m.Loss.Sent += s.Loss.Sent
			m.Loss.Lost += s.Loss.Lost
			m.Loss.Late += s.Loss.Late
			m.Loss.Duplicates += s.Loss.Duplicates
			m.Loss.Reordered += s.Loss.Reordered
			if s.TCP != nil {
				if m.TCP == nil {
					m.TCP = &result.TCP{}
				}
				m.TCP.Retransmits += s.TCP.Retransmits
				m.TCP.Timeouts += s.TCP.Timeouts
				m.TCP.RTO = max(m.TCP.RTO, s.TCP.RTO)
			}
			if s.Segments != nil {
				continue
			}
			for side, c := range s.CPU {
				m.CPU[side].User += c.User
				m.CPU[side].System += c.System
				m.CPU[side].Forwarding += c.Forwarding
			}
			elapsed += float64(s.Elapsed)
			transactions += float64(s.Transactions)
			octets += float64(s.Octets)
			jitter += s.Jitter * float64(m.sessions[i].count)
		}
		for side := range m.CPU {
			c := &m.CPU[side]
			used := float64(c.User + c.System + c.Forwarding)
			c.PerTransaction = over(used/1e3, transactions)
			c.PerKB = over(used/1e3, octets/1024)
			c.Utilisation = over(used, elapsed)
		}
		if m.Rate = over(transactions*1e9, elapsed); l.streams() {
			m.Rate = over(octets*1e9, elapsed)
		}
		m.merged, m.mergedSends = Merge(m.sessions...), Merge(m.fromSend...)
		m.Latency = m.merged.Latency(over(jitter, float64(m.merged.count)))
		m.merged.label(m.Latency, Merge(m.waited...))
		if m.mergedSends.count > 0 {
			m.FromSend = m.mergedSends.Latency(0)
		}
		m.Segments, m.OneWay, m.Background = segments(m.Sessions), oneWay(m.Sessions), background(m.Sessions)
	}
}

// over is a/b, and 0 of nothing.
func over(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// segments are medians over sessions.
func segments(sessions []result.Session) *result.Segments {
	return overSessions(sessions, func(s *result.Session) *result.Segments { return s.Segments }, func(s *result.Segments) (*int64, []*int64) {
		return &s.Count, []*int64{&s.Send, &s.Path, &s.Receive, &s.Send99, &s.Path99, &s.Receive99, &s.NIC, &s.NIC99}
	})
}

// oneWay are medians over sessions.
func oneWay(sessions []result.Session) *result.OneWay {
	return overSessions(sessions, func(s *result.Session) *result.OneWay { return s.OneWay }, func(w *result.OneWay) (*int64, []*int64) {
		return &w.Count, []*int64{&w.There, &w.Back, &w.There99, &w.Back99}
	})
}

// background is the medians over sessions, and what was sent again in all of them.
func background(sessions []result.Session) *result.Background {
	all := overSessions(sessions, func(s *result.Session) *result.Background { return s.Background }, func(b *result.Background) (*int64, []*int64) {
		return &b.TCP.Retransmits, []*int64{&b.Maximum, &b.Rate}
	})
	if all == nil {
		return nil
	}
	for _, s := range sessions {
		if s.Background != nil {
			all.TCP.RTO = max(all.TCP.RTO, s.Background.TCP.RTO)
		}
	}
	return all
}

// short says of which of two paths the stream has not had its rate.
func (l *load) short(paths ...*measured) string {
	for _, m := range paths {
		if b := m.Background; b != nil && b.Part() < result.Reached*l.load.Under {
			return fmt.Sprintf("the stream of %s had %s %% of its maximum, not %s %%", m.Path, short(100*b.Part()), short(100*l.load.Under))
		}
	}
	return ""
}

// overSessions is the sum of counts, and of each other field the median, of those sessions that have what of picks; nil if none has.
func overSessions[T any](sessions []result.Session, of func(*result.Session) *T, fields func(*T) (count *int64, others []*int64)) *T {
	var values [][]float64
	total := int64(0)
	for i := range sessions {
		one := of(&sessions[i])
		if one == nil {
			continue
		}
		count, others := fields(one)
		total += *count
		if values == nil {
			values = make([][]float64, len(others))
		}
		for k, v := range others {
			values[k] = append(values[k], float64(*v))
		}
	}
	if values == nil {
		return nil
	}
	var all T
	count, others := fields(&all)
	*count = total
	for k, v := range others {
		*v = int64(math.Round(median(values[k])))
	}
	return &all
}

// A disturbance is one way to disturb sessions, and how many it has disturbed.
type disturbance struct {
	text  string // says the limit and the worst
	unit  float64
	limit float64
	of    func(result.Noise) float64

	sessions int
	worst    float64
}

// leaveOutNoisy sets l.quiet, and l.noise if too little is left. It looks at what disturbed a session, never at what was measured
// in it: leaving out by latency would choose the result.
func (l *load) leaveOutNoisy(limits result.Limits) {
	facts := []disturbance{
		{text: "more than %s %% of the CPUs' time was stolen, up to %s %%", unit: 100, limit: limits.Steal, of: func(n result.Noise) float64 {
			return over(float64(n.Steal), 2*float64(n.Elapsed))
		}},
		{text: "more than %s %% of the CPUs' time was used by others, up to %s %%", unit: 100, limit: limits.Others, of: func(n result.Noise) float64 {
			return over(float64(n.Others), 2*float64(n.Elapsed))
		}},
		{text: "more than %s involuntary switches per second, up to %s", unit: 1, limit: limits.Switches, of: func(n result.Noise) float64 {
			return over(float64(n.Switches)*1e9, float64(n.Elapsed))
		}},
	}
	var all []int // those without timestamps
	for _, m := range l.cases {
		for i, s := range m.Sessions {
			if s.Segments == nil && !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
	}
	for _, i := range all {
		quiet := true
		for k := range facts {
			f := &facts[k]
			var worst float64
			for _, m := range l.cases {
				if i < len(m.Sessions) {
					worst = max(worst, f.of(m.Sessions[i].Noise))
				}
			}
			if f.limit > 0 && worst > f.limit {
				f.sessions++
				f.worst = max(f.worst, worst)
				quiet = false
			}
		}
		if quiet {
			l.quiet = append(l.quiet, i)
		}
	}
	if 2*len(l.quiet) >= len(all) {
		return
	}
	l.quiet = all // there will be no verdict, but there are numbers
	slices.SortStableFunc(facts, func(a, b disturbance) int { return cmp.Compare(b.sessions, a.sessions) })
	for _, f := range facts {
		if f.sessions > 0 {
			l.noise = append(l.noise, fmt.Sprintf("%s: in %d of %d sessions ", l.load, f.sessions, len(all))+
				fmt.Sprintf(f.text, short(f.limit*f.unit), short(f.worst*f.unit)))
		}
	}
}

func short(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }

// judge compares each path of the load with the baseline.
func (l *load) judge(run *result.Run) {
	base := l.find(run.Baseline)
	if base == nil {
		return
	}
	floor := result.Floor{Load: l.load, Pairs: len(l.twins(""))}
	for _, p := range []float64{50, 99} {
		var comparisons []*comparison
		for _, m := range l.cases {
			if m != base {
				comparisons = append(comparisons, l.compare(run, m, base, p))
			}
		}
		decide(comparisons, float64(run.Parameters.Margin))
		if p == 50 {
			l.medians = comparisons
		}
		for _, c := range comparisons {
			if c.of.Against == nil {
				c.of.Against = &result.Against{}
			}
			*pick(c.of.Against, p) = c.effect()
		}
		if f := l.floor(p, ""); p == 50 {
			floor.P50 = result.Delta(f)
		} else {
			floor.P99 = result.Delta(f)
		}
	}
	if floor.Pairs > 0 {
		run.Floors = append(run.Floors, floor)
	}
}

func pick(a *result.Against, p float64) *result.Effect {
	if p == 50 {
		return &a.P50
	}
	return &a.P99
}

// twins are the pairs of identical paths, without those of the path that is named: what is to be judged does not set its own measure.
// If there are no others it does: then it is judged by what it varies.
func (l *load) twins(judged string) (pairs [][2]*measured) {
	of := func(m *measured) string {
		if m.path.Twin != "" {
			return m.path.Twin
		}
		return m.Path
	}
	var own [][2]*measured
	for i, a := range l.cases {
		for _, b := range l.cases[:i] {
			if of(a) != of(b) {
				continue
			}
			if a.Path == judged || b.Path == judged {
				own = append(own, [2]*measured{a, b})
			} else {
				pairs = append(pairs, [2]*measured{a, b})
			}
		}
	}
	if pairs == nil {
		return own
	}
	return pairs
}

// floor is at least a bin of the histogram at the percentile, since less is not measured. If no twins have it, it is 0.
func (l *load) floor(p float64, judged string) float64 {
	var all []float64
	for _, pair := range l.twins(judged) {
		for _, s := range l.differences(pair[0], pair[1], p).sessions {
			all = append(all, math.Abs(s.difference))
		}
	}
	if all == nil {
		return 0
	}
	slices.Sort(all)
	return max(quantile(all, 0.975), l.grain(p))
}

func (l *load) grain(p float64) float64 {
	for _, m := range l.cases {
		if v, ok := m.merged.At(p); ok && v != result.Lost {
			return math.Ceil(float64(v) / 1024)
		}
	}
	return 1
}

// paired are the differences of two paths in quiet sessions.
type paired struct {
	sessions []session
	few      bool  // some sessions had too few samples
	lost     int   // sessions where both lost the percentile: no difference
	least    int64 // samples
}

func (l *load) differences(a, b *measured, p float64) paired {
	d := paired{least: math.MaxInt64}
	for _, i := range l.quiet {
		if i >= len(a.sessions) || i >= len(b.sessions) {
			continue
		}
		x, okx := a.sessions[i].At(p)
		y, oky := b.sessions[i].At(p)
		for _, s := range []*Distribution{a.sessions[i], b.sessions[i]} {
			d.least = min(d.least, s.count+s.lost)
		}
		switch {
		case !okx || !oky:
			d.few = true
		case x == result.Lost && y == result.Lost:
			d.lost++
		case x == result.Lost:
			d.sessions = append(d.sessions, session{difference: math.Inf(1)})
		case y == result.Lost:
			d.sessions = append(d.sessions, session{difference: math.Inf(-1)})
		default:
			d.sessions = append(d.sessions, newSession(float64(x-y), blocks(a.Sessions[i], b.Sessions[i], p)))
		}
	}
	return d
}

// blocks are differences of the parts that both sessions have.
func blocks(a, b result.Session, p float64) []float64 {
	column := 0
	if p == 99 {
		column = 1
	}
	all := make([]float64, min(len(a.Blocks), len(b.Blocks)))
	for i := range all {
		x, y := a.Blocks[i][column], b.Blocks[i][column]
		if x == result.Lost || y == result.Lost {
			return nil
		}
		all[i] = float64(x - y)
	}
	return all
}

func (l *load) compare(run *result.Run, m, base *measured, p float64) *comparison {
	d := l.differences(m, base, p)
	c := &comparison{of: m, floor: l.floor(p, m.Path), sessions: len(d.sessions)}
	if len(d.sessions) > 0 && !mixed(d.sessions) {
		c.difference = effect(d.sessions)
		c.replicates = bootstrap(d.sessions, source(run.Parameters.Seed, m.Path, l.load, p))
	} else {
		c.sessions = 0
	}
	reference, _ := base.merged.At(p)
	switch limit := run.Parameters.Limits.Floor; {
	case len(run.Doubts) > 0:
		c.why = run.Doubts[0]
	case len(l.noise) > 0:
		c.why = l.noise[0]
	case l.short(m, base) != "":
		c.why = l.short(m, base)
	case len(d.sessions) > 0 && c.sessions == 0:
		c.why = "now one path lost it, now the other"
	case len(d.sessions) == 0 && d.lost > 0:
		c.why = "both paths lost it"
	case len(d.sessions) == 0 && d.few:
		c.why = fmt.Sprintf("it needs %d samples a session, there are %d", Needed(p), d.least)
	case len(d.sessions) == 0:
		c.why = "no sessions to compare"
	case len(l.twins(m.Path)) == 0:
		c.why = "without twins the noise is not known"
	case math.IsInf(c.floor, 0):
		c.why = "one of two identical paths lost it"
	case limit > 0 && reference != result.Lost && c.floor > limit*float64(reference) && limit*math.Abs(c.difference) < c.floor:
		c.why = fmt.Sprintf("identical paths differ by up to %s us, too much beside %s us", short(c.floor/1e3), short(float64(reference)/1e3))
	}
	return c
}

func mixed(sessions []session) bool {
	var plus, minus bool
	for _, s := range sessions {
		plus = plus || math.IsInf(s.difference, 1)
		minus = minus || math.IsInf(s.difference, -1)
	}
	return plus && minus
}

// source is the same for the same question, whatever else is asked.
func source(seed uint64, path string, l result.Load, p float64) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, path, "\x00", l, "\x00", p)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
