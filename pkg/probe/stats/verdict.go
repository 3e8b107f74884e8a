package stats

import (
	"cmp"
	"math"
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A comparison is on its way to a verdict.
type comparison struct {
	of         *measured
	sessions   int
	difference float64
	replicates []float64 // ascending
	floor      float64
	why        string // there is no verdict

	low, high float64
	verdict   string
	more      int
}

func (c *comparison) effect() result.Effect {
	e := result.Effect{Verdict: c.verdict, Why: c.why, More: c.more}
	if c.sessions > 0 {
		e.Sessions, e.Difference, e.Floor = c.sessions, result.Delta(c.difference), result.Delta(c.floor)
		e.Low, e.High = result.Delta(c.low), result.Delta(c.high)
	}
	return e
}

// decide gives the verdicts of the paths of one load, and a family of tests is what they are: by Holm's method no difference at all is
// seen in 95 of 100 families of identical paths.
func decide(family []*comparison, margin float64) {
	var open []*comparison
	for _, c := range family {
		if c.sessions > 0 {
			c.low, c.high = c.interval(alpha)
		}
		switch bound := max(c.floor, margin); {
		case c.why != "":
			c.verdict = result.NoVerdict
		case c.sessions < minSessions:
			c.verdict, c.more = result.Undecided, minSessions-c.sessions
			open = append(open, c)
		case -bound <= c.low && c.high <= bound:
			c.verdict = result.Equivalent
			open = append(open, c) // it is one of the family
		default:
			c.verdict = result.Undecided
			open = append(open, c)
		}
	}
	slices.SortStableFunc(open, func(a, b *comparison) int { return cmp.Compare(a.p(), b.p()) })
	for i, c := range open {
		low, high := c.interval(alpha / float64(len(open)-i))
		if low <= c.floor && -c.floor <= high {
			break
		}
		if c.verdict == result.Undecided && c.sessions >= minSessions {
			c.verdict = result.Different
		}
	}
	for _, c := range open {
		if c.verdict == result.Undecided && c.sessions >= minSessions {
			c.more = c.needs(margin, alpha/float64(len(open)))
		}
	}
}

// interval is what the difference is outside of with the probability level.
func (c *comparison) interval(level float64) (low, high float64) {
	level = expanded(level, c.sessions)
	return quantile(c.replicates, level/2), quantile(c.replicates, 1-level/2)
}

// p orders comparisons: the probability, two-sided, of a resample on the other side of the floor.
func (c *comparison) p() float64 {
	var other int
	for _, r := range c.replicates {
		if c.difference > 0 && r <= c.floor || c.difference <= 0 && r >= -c.floor {
			other++
		}
	}
	return min(1, 2*float64(other+1)/float64(len(c.replicates)+1))
}

// needs is how many more sessions would decide it if the difference stayed and the interval shrank by the square root of their number: the least of
// what "different" takes, by an interval of the given level, and what "equivalent" takes.
func (c *comparison) needs(margin, level float64) int {
	var (
		size  = math.Abs(c.difference)
		bound = max(c.floor, margin)
		least = math.Inf(1)
	)
	ask := func(low, high, room float64) {
		if half := (high - low) / 2; room > 0 && !math.IsInf(half, 0) && !math.IsNaN(half) {
			least = min(least, float64(c.sessions)*(half/room)*(half/room))
		}
	}
	low, high := c.interval(level)
	ask(low, high, size-c.floor)
	ask(c.low, c.high, bound-size)
	if more := math.Ceil(least) - float64(c.sessions); more <= maxMore {
		return max(int(more), 1)
	}
	return 0
}
