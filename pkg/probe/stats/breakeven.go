package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// breakEvens says of each kind of first packets how long a connection has to be for a path to be cheaper than the baseline. A connection of the path and the
// one of the baseline after it are a pair, since what the machine does meanwhile both have; what comes after their packets costs what it does in the steady
// state, by medians: tails of the steady state are not in it. The interval is of resamples of pairs and of the steady state's differences.
func (l *load) breakEvens(run *result.Run) {
	run.Ports.BreakEvens = nil
	base := l.find(run.Baseline)
	if base == nil {
		return
	}
	cpu := l.compareCPU(run, base)
	for i := range run.Ports.Lives {
		life := &run.Ports.Lives[i]
		j := slices.IndexFunc(run.Ports.Lives, func(o result.Life) bool { return o.Path == run.Baseline && o.Before == life.Before })
		if life.Path == run.Baseline || j < 0 {
			continue
		}
		for _, x := range []struct {
			of     string
			family []*comparison
		}{{result.OfTime, l.medians}, {result.OfCPU, cpu}} {
			k := slices.IndexFunc(x.family, func(c *comparison) bool { return c.of.Path == life.Path })
			if k < 0 {
				continue
			}
			b := result.BreakEven{Path: life.Path, Before: life.Before, Of: x.of}
			pairs, why := pair(life, &run.Ports.Lives[j], x.of, claimOf(run, life.Path))
			settle(&b, pairs, why, x.family[k], source(run.Parameters.Seed, life.Path+" "+life.Before+" "+x.of, l.load, 0))
			if b.From > 0 {
				b.Octets = b.From * int64(octets(l.load))
			}
			run.Ports.BreakEvens = append(run.Ports.BreakEvens, b)
		}
	}
}

// octets are the payload of a request and its answer.
func octets(l result.Load) int {
	if l.Answer == 0 {
		return 2 * l.Size
	}
	return l.Size + l.Answer
}

func claimOf(run *result.Run, path string) string {
	for _, w := range run.Ports.Ways {
		if w.Path == path {
			return w.Claim
		}
	}
	return ""
}

// A beginning is how much more than the baseline a connection has taken after its first packets: [0] after none.
type beginning []float64

// pair returns the beginnings of those connections that can be compared, and why others cannot be.
func pair(a, base *result.Life, of, claim string) (pairs []beginning, why string) {
	for i := range min(len(a.Trials), len(base.Trials)) {
		x, y := &a.Trials[i], &base.Trials[i]
		xs, ys := x.Took, y.Took
		if of == result.OfCPU {
			xs, ys = x.CPU, y.CPU
		}
		switch n := min(len(x.Took), len(y.Took)); {
		case slices.Contains(x.Took[:n], result.Lost) || slices.Contains(y.Took[:n], result.Lost):
			why = "packets were lost"
		case !switched(x.Switches[0], claim) || !switched(x.Switches[1], claim):
			why = fmt.Sprintf("in %d packets it was not offloaded both ways", len(x.Took))
		case len(xs) < n || len(ys) < n:
			why = "what ovs-vswitchd takes is not known"
		default:
			b := beginning{0}
			for k := range n {
				b = append(b, b[k]+float64(xs[k]-ys[k]))
			}
			pairs = append(pairs, b)
		}
	}
	return pairs, why
}

func switched(s result.Switch, claim string) bool {
	return s.Hardware > 0 || s.Packet > 0 && claim != result.ByHardware
}

// from returns the number of packets from which on a connection has taken less than the baseline and stays so, if each packet after the first ones takes
// so much more; infinite: it does not.
func (b beginning) from(then float64) float64 {
	n := len(b) - 1
	switch {
	case b[n] >= 0 && then >= 0 || then > 0:
		return math.Inf(1)
	case b[n] >= 0:
		return float64(n) + math.Floor(b[n]/-then) + 1
	}
	for n > 0 && b[n-1] < 0 {
		n--
	}
	return float64(max(n, 1)) // after none it has taken nothing
}

// settle fills what comes of the pairs and of what further packets take.
func settle(b *result.BreakEven, pairs []beginning, why string, then *comparison, r *rand.Rand) {
	b.Verdict, b.Connections, b.Then = result.Undecided, len(pairs), then.effect()
	if len(pairs) == 0 {
		if b.Why = "no connections were compared"; why != "" {
			b.Why += ": " + why
		}
		return
	}
	var first, froms []float64
	for _, p := range pairs {
		first, froms = append(first, p[len(p)-1]), append(froms, p.from(then.difference))
		b.Packets = max(b.Packets, len(p)-1)
	}
	b.First = result.Delta(median(first))
	switch {
	case then.verdict == result.NoVerdict:
		b.Why = "of further packets there is no verdict: " + then.why
	case then.verdict == result.Equivalent:
		b.Why = "further packets take the same, as far as identical paths do"
	case then.verdict == result.Undecided:
		b.Why = "it is undecided whether further packets take less"
	case then.difference > 0:
		b.Verdict, b.Why = result.Never, "further packets take more"
	default:
		b.Verdict, b.From = result.FromPacket, whole(median(froms))
		if len(pairs) >= minSessions {
			level := expanded(alpha, len(pairs))
			all := resampleFrom(pairs, then.replicates, r)
			b.Low, b.High = whole(quantile(all, level/2)), whole(quantile(all, 1-level/2))
		}
	}
}

func resampleFrom(pairs []beginning, thens []float64, r *rand.Rand) []float64 {
	all, values := make([]float64, replicates), make([]float64, len(pairs))
	for i := range all {
		then := thens[r.IntN(len(thens))]
		for j := range values {
			values[j] = pairs[r.IntN(len(pairs))].from(then)
		}
		all[i] = median(values)
	}
	slices.Sort(all)
	return all
}

// whole is a number of packets. What no connection has is the most there can be.
func whole(n float64) int64 {
	const most = 1 << 53
	return int64(min(math.Ceil(n), most))
}

// compareCPU compares what a transaction takes of CPU time on both sides, by session.
func (l *load) compareCPU(run *result.Run, base *measured) (family []*comparison) {
	for _, m := range l.cases {
		if m == base {
			continue
		}
		c := &comparison{of: m}
		var twins []float64
		for _, pair := range l.twins(m.Path) {
			for _, s := range l.cpuDifferences(pair[0], pair[1]) {
				twins = append(twins, math.Abs(s.difference))
			}
		}
		sessions := l.cpuDifferences(m, base)
		switch c.sessions = len(sessions); {
		case len(run.Doubts) > 0:
			c.why = run.Doubts[0]
		case len(l.noise) > 0:
			c.why = l.noise[0]
		case c.sessions == 0:
			c.why = "no sessions to compare"
		case len(twins) == 0:
			c.why = "without twins the noise is not known"
		}
		if len(twins) > 0 {
			slices.Sort(twins)
			c.floor = quantile(twins, 0.975)
		}
		if c.sessions > 0 {
			c.difference = effect(sessions)
			c.replicates = bootstrap(sessions, source(run.Parameters.Seed, m.Path+" cpu", l.load, 0))
		}
		family = append(family, c)
	}
	decide(family, 0)
	return family
}

func (l *load) cpuDifferences(a, b *measured) (all []session) {
	for _, i := range l.quiet {
		if i >= len(a.Sessions) || i >= len(b.Sessions) {
			continue
		}
		x, y := perTransaction(&a.Sessions[i]), perTransaction(&b.Sessions[i])
		if x > 0 && y > 0 {
			all = append(all, session{difference: x - y})
		}
	}
	return all
}

// perTransaction is in nanoseconds, of both sides.
func perTransaction(s *result.Session) float64 {
	used := 0.0
	for _, c := range s.CPU {
		used += float64(c.User + c.System + c.Forwarding)
	}
	return over(used, float64(s.Transactions))
}
